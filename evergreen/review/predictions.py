"""What the champion says of items, and how it represents them, so that look-alikes can be found.

`.evergreen/review/NAME/cache/predictions.npz` keeps this for the items of the data set, as long as the champion is the same.
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.serving.embedding import EmbeddingModel
from evergreen.workspace import replace_file

AT_ONCE = 32  # items
SAVE_SECONDS = 20.0


@dataclass(frozen=True)
class Seen:
    """What the network gave for one item: its first output, and the embedding, float32 `(dimensions,)` of length 1."""

    output: np.ndarray
    embedding: np.ndarray


class Predictions:
    """The outputs and embeddings of a network for items of the data set; more are added over time, also while others read.

    Attributes:
        model: the network.
    """

    def __init__(self, model: EmbeddingModel, file: Path) -> None:
        """
        Args:
            file: keeps them for the next time; ignored if it is of another network, or damaged.
        """
        self.model, self._file = model, file
        self._ids: list[str] = []
        self._seen: dict[str, Seen] = {}
        self._matrix = np.empty((0, 0), np.float32)  # embeddings of the first items in `_ids`
        self._lock = threading.Lock()
        self._load()

    def __contains__(self, id: str) -> bool:
        return id in self._seen

    def __getitem__(self, id: str) -> Seen:
        return self._seen[id]

    def get(self, id: str) -> Seen | None:
        """What the network gave for an item; None if it has not been run on it."""
        return self._seen.get(id)

    def see(self, item: Any) -> Seen:
        """Run the network on one item that is not in the data set.

        Raises:
            Exception: the network cannot take it (`Codec.encode`).
        """
        return self._run([item])[0]

    def add(self, items: Iterable[tuple[str, Any]], report: Callable[[float], None]) -> None:
        """Run the network on items of the data set. Items that it cannot take are left out.

        Args:
            items: ids and items.
            report: called with the number of items that are done.
        """
        saved, done, coming = time.monotonic(), 0, iter(items)
        while chunk := list(islice(coming, AT_ONCE)):
            self._put(chunk)
            done += len(chunk)
            report(done)
            if time.monotonic() > saved + SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()

    def nearest(self, seen: Seen, count: int, *, but: str) -> list[str]:
        """The ids of the items of the data set whose embedding is most similar, the most similar one first.

        Args:
            but: the id of an item that is left out: the item itself.
        """
        with self._lock:
            if len(self._matrix) < len(self._ids):
                self._matrix = np.stack([self._seen[id].embedding for id in self._ids])
            matrix, ids = self._matrix, self._ids
        if not len(matrix):
            return []
        similarity = matrix @ seen.embedding
        first = np.argpartition(-similarity, min(count, len(similarity) - 1))[: count + 1]
        ordered = first[np.argsort(-similarity[first], kind="stable")]
        return [ids[one] for one in ordered.tolist() if ids[one] != but][:count]

    def save(self) -> None:
        """Write the file. Errors such as a full disk are ignored, since everything can be computed again."""
        with self._lock:
            ids = list(self._ids)
        if not ids:
            return
        content = io.BytesIO()
        np.savez(
            content,
            fingerprint=np.array(self.model.fingerprint),
            ids=np.array(ids, "S64"),
            outputs=np.stack([self._seen[id].output for id in ids]),
            embeddings=np.stack([self._seen[id].embedding for id in ids]).astype(np.float16),
        )
        with contextlib.suppress(OSError):
            replace_file(self._file, content.getvalue())

    def _load(self) -> None:
        with (
            contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile),
            np.load(self._file, allow_pickle=False) as kept,
        ):
            if str(kept["fingerprint"]) != self.model.fingerprint:
                return
            ids = [id.decode() for id in kept["ids"].tolist()]
            outputs, embeddings = kept["outputs"], kept["embeddings"].astype(np.float32)
            self._seen = {id: Seen(*pair) for id, *pair in zip(ids, outputs, embeddings, strict=True)}
            self._ids = ids

    def _put(self, chunk: Sequence[tuple[str, Any]]) -> None:
        try:
            found = list(zip([id for id, _ in chunk], self._run([item for _, item in chunk]), strict=True))
        except Exception:  # noqa: BLE001 (the kind defines what its codec raises)
            found = []
            for id, item in chunk:
                with contextlib.suppress(Exception):
                    found.append((id, self._run([item])[0]))
        with self._lock:
            for id, seen in found:
                if id not in self._seen:
                    self._seen[id] = seen
                    self._ids.append(id)

    def _run(self, items: Sequence[Any]) -> list[Seen]:
        embeddings, outputs = self.model.embed(self.model.codec.encode(items))
        lengths = np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-9)
        return [Seen(output, embedding) for output, embedding in zip(outputs, embeddings / lengths, strict=True)]
