"""Built-in data sets."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from evergreen.data.sources.builtin import DigitsSource
from evergreen.media.images import inspect


def test_the_digits_are_the_same_bytes_everywhere() -> None:
    found = list(DigitsSource().stream())
    assert len(found) == 1797 and found[0].name == "digits/0/0000.png" and found[-1].fraction_read == 1
    digest = hashlib.sha256(b"".join(item.data or b"" for item in found)).hexdigest()
    assert digest == "82be77aa2939271dc94b902b92ae6b4a97fb35c81a82d06c5b7da467be0b10b3"
    header = inspect(found[0].data or b"").header
    assert (header.width, header.height, header.channels) == (8, 8, 1)
    assert DigitsSource().published_at == datetime(1998, 7, 1, tzinfo=UTC)
