"""Data sets that an installed library carries, as sources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import ClassVar

from evergreen.data.sources.base import Source, SourceEntry
from evergreen.data.sources.png import plain_png


class DigitsSource(Source):
    """scikit-learn's digits (Alpaydin and Kaynak 1998, UCI repository): 1,797 images of 8×8 grey pixels, 0 to 16 scaled to 0 to
    255."""

    published_at: ClassVar[datetime | None] = datetime(1998, 7, 1, tzinfo=UTC)

    def stream(self) -> Iterator[SourceEntry]:
        import numpy as np
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        for number, (image, label) in enumerate(zip(images, digits.target, strict=True)):
            data = plain_png(image)
            name = f"digits/{label}/{number:04d}.png"
            yield SourceEntry(name, data, len(data), fraction_read=(number + 1) / len(images))

    def fingerprint(self) -> str:
        return hashlib.sha256(f"builtin {self.describe()}".encode()).hexdigest()

    def describe(self) -> str:
        return "digits"


BUILTINS: dict[str, type[Source]] = {"digits": DigitsSource}
