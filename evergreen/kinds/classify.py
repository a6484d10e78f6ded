"""One label an image."""

from __future__ import annotations
