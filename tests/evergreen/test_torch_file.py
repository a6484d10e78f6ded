from __future__ import annotations

import hashlib
import io
import os
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evergreen.errors import EvergreenError
from evergreen.models.torch_file import MAGIC_NUMBER, PROTOCOL_VERSION, read_tensors


@pytest.fixture(autouse=True)
def torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """Modules with the names that PyTorch's pickles mention, so that they can be written here."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*_: object) -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    yield torch


class Tensor:
    """What is pickled as a tensor: a view of a flat array."""

    def __init__(self, storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.storage, self.view = storage, (offset, shape, strides)

    def __reduce__(self) -> tuple[Any, ...]:
        offset, shape, strides = self.view
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (
            Storage(self.storage), offset, shape, strides, False, OrderedDict(),
        )  # fmt: skip


class Storage:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values


class Pickler(pickle.Pickler):
    def persistent_id(self, found: Any) -> Any:
        if not isinstance(found, Storage):
            return None
        name = "FloatStorage" if found.values.dtype == np.float32 else "LongStorage"
        return ("storage", getattr(sys.modules["torch"], name), str(id(found.values)), "cpu", len(found.values), None)


def write(path: Path, tensors: Any, *, magic: int = MAGIC_NUMBER, cut: int = 0) -> str:
    """Write a file as PyTorch did before version 1.6; gives its hash."""
    file = io.BytesIO()
    for part in (magic, PROTOCOL_VERSION, {"little_endian": True}, tensors):
        Pickler(file, protocol=2).dump(part)
    plain = tensors if isinstance(tensors, dict) else {}
    storages = {str(id(one.storage)): one.storage for one in plain.values() if isinstance(one, Tensor)}
    pickle.dump(list(storages), file, protocol=2)
    for values in storages.values():
        file.write(len(values).to_bytes(8, "little") + values.tobytes())
    content = file.getvalue()[: -cut or None]
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.lists(st.integers(1, 4), max_size=4), order=st.randoms(), offset=st.integers(0, 3), whole=st.booleans())
def test_tensors_are_read_as_their_strides_say(tmp_path: Path, shape: list[int], order: Any, offset: int, whole: bool) -> None:
    values = np.arange(offset + int(np.prod(shape))).astype("<i8" if whole else "<f4")
    axes = list(range(len(shape)))
    order.shuffle(axes)
    stored = values[offset:].reshape([shape[axis] for axis in axes])
    expected = stored.transpose(np.argsort(axes)) if axes else stored
    strides = tuple(step // values.itemsize for step in expected.strides)
    sha256 = write(tmp_path / "weights", OrderedDict(a=Tensor(values, offset, tuple(shape), strides)), cut=0)
    found = read_tensors(tmp_path / "weights", sha256)["a"]
    assert found.dtype == values.dtype and found.shape == tuple(shape) and found.flags.c_contiguous
    assert np.array_equal(found, expected)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (self.path,)


def test_a_function_that_the_file_names_is_not_called(tmp_path: Path) -> None:
    sha256 = write(tmp_path / "weights", OrderedDict(a=Malicious(tmp_path / "made")))
    with pytest.raises(EvergreenError, match="other than tensors: it names posix.mkdir"):
        read_tensors(tmp_path / "weights", sha256)
    assert not (tmp_path / "made").exists()


def small() -> Tensor:
    return Tensor(np.arange(6, dtype=np.float32), 0, (2, 3), (3, 1))


@pytest.mark.parametrize(
    ("tensors", "changes", "message"),
    [
        ([1, 2], {}, "no dictionary of tensors"),
        (OrderedDict(a=3), {}, "no dictionary of tensors"),
        (OrderedDict(a=Tensor(np.zeros(6, np.float32), 1, (2, 3), (3, 1))), {}, "reaches beyond its storage"),
        (OrderedDict(a=Tensor(np.zeros(6, np.float32), 4, (2, 3), (-3, 1))), {}, "reaches beyond its storage"),
        (OrderedDict(a=small()), {"magic": 7}, "not written by PyTorch before version 1.6"),
        (OrderedDict(a=small()), {"cut": 5}, ""),
        (OrderedDict(a=small()), {"cut": 60}, ""),
    ],
    ids=["list", "number", "beyond", "before", "magic", "end", "middle"],
)
def test_anything_but_whole_tensors_is_refused(tmp_path: Path, tensors: Any, changes: dict[str, int], message: str) -> None:
    sha256 = write(tmp_path / "weights", tensors, **changes)
    with pytest.raises(EvergreenError, match=f"holds something other than tensors: .*{message}"):
        read_tensors(tmp_path / "weights", sha256)


def test_another_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    sha256 = write(tmp_path / "weights", OrderedDict(a=small()))
    with pytest.raises(EvergreenError, match="is not the expected file of weights") as refused:
        read_tensors(tmp_path / "weights", "0" * 64)
    assert sha256 in str(refused.value) and "make clean install" in str(refused.value)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(EvergreenError, match="cannot be read: .*No such file"):
        read_tensors(tmp_path / "weights", "0" * 64)
