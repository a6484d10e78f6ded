"""Reads weights in the file format that PyTorch wrote before version 1.6, without PyTorch.

Such a file is a sequence of pickles (a magic number, a protocol version, the system, the tensors by name, the keys of their
storages), followed by the bytes of each storage with their number in front. A pickle can name any function to be called when it
is read. Here only the three names that a plain dictionary of tensors needs are known, and none of them calls code of the file.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from evergreen.errors import EvergreenError

MAGIC_NUMBER, PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage, which is read later."""

    dtype: str
    key: str
    items: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, storage: np.ndarray) -> np.ndarray:
        last = self.offset + sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))
        if min((self.offset, *self.shape, *self.strides), default=0) < 0 or last >= len(storage):
            raise ValueError(f"a tensor of shape {self.shape} reaches beyond its storage")
        steps = [stride * storage.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, steps, writeable=False)
        return np.array(view, order="C")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
            "torch.FloatStorage": "<f4",
            "torch.LongStorage": "<i8",
        }
        if f"{module}.{name}" not in known:
            raise ValueError(f"it names {module}.{name}, which a file of weights does not need")
        return known[f"{module}.{name}"]

    def persistent_load(self, identity: Any) -> Any:
        kind, dtype, key, _device, items, view = identity
        if kind != "storage" or view is not None:
            raise ValueError("it holds something that is no plain storage")
        return dtype, key, items


def _rebuild_tensor(
    storage: tuple[str, str, int], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _Tensor:
    return _Tensor(*storage, offset, shape, strides)


def read_tensors(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Read the tensors of a file by name, float32 or int64, in the memory order of their shapes.

    Args:
        sha256: of the whole file, in hexadecimal digits.

    Raises:
        EvergreenError: the file is missing, is not the one with this hash, or holds anything but tensors.
    """
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256:
                raise EvergreenError(
                    f"{path} is not the expected file of weights", expected=f"sha256 {sha256}", received=found,
                    fix="Install the requirements again: make clean install",
                )  # fmt: skip
            file.seek(0)
            return _read(file)
    except OSError as error:
        raise EvergreenError(
            f"the weights cannot be read: {error}", fix="Install the requirements again: make clean install"
        ) from None
    except (ValueError, TypeError, LookupError, EOFError, pickle.UnpicklingError) as error:
        raise EvergreenError(f"{path} holds something other than tensors: {error}", fix="Use another file.") from None


def _read(file: IO[bytes]) -> dict[str, np.ndarray]:
    magic, version, _system, tensors = (_Unpickler(file).load() for _ in range(4))
    if (magic, version) != (MAGIC_NUMBER, PROTOCOL_VERSION):
        raise ValueError("it was not written by PyTorch before version 1.6")
    if not isinstance(tensors, dict) or not all(isinstance(one, _Tensor) for one in tensors.values()):
        raise ValueError("it is no dictionary of tensors")
    dtypes = {tensor.key: np.dtype(tensor.dtype) for tensor in tensors.values()}
    storages = {}
    for key in _Unpickler(file).load():
        items = int.from_bytes(file.read(8), "little")
        content = file.read(items * dtypes[key].itemsize)
        storages[key] = np.frombuffer(content, dtypes[key])
        if len(storages[key]) != items:
            raise ValueError("it ends too early")
    return {name: tensor.of(storages[tensor.key]) for name, tensor in tensors.items()}
