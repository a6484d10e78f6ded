"""Draws text chosen by users, such as labels, literally: never as mathematics, and in a font that has its characters."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

log = logging.getLogger("evergreen")

DEFAULT = "DejaVu Sans"  # included in matplotlib
# Packages of Debian and Ubuntu that have the characters of a script, by the first word of the characters' Unicode names.
PACKAGES = {
    **dict.fromkeys(
        ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "FULLWIDTH", "HALFWIDTH", "IDEOGRAPHIC"),
        "fonts-noto-cjk",
    ),
    **dict.fromkeys(("EMOJI", "SYMBOL"), "fonts-symbola"),
}
OTHER_PACKAGE = "fonts-noto-core"


def drawable(texts: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The texts in a form that can be drawn on this machine, and the text properties for matplotlib.

    A text with characters that no installed font has is replaced by its number ("label 3", from 1), which a warning explains
    once.
    """
    families, missing = fonts_for(texts)
    if missing:
        _warn("".join(sorted(missing)))
    shown = [f"label {number}" if set(text) & missing else text for number, text in enumerate(texts, 1)]
    return shown, {"parse_math": False, "fontfamily": list(families)}


def fonts_for(texts: Iterable[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """The fonts to try in turn, and the characters that no font on this machine has."""
    return _fonts_for(frozenset("".join(texts)))


def remedy(missing: Iterable[str]) -> str:
    """The command that installs the packages of Debian and Ubuntu with characters like these."""
    packages = set()
    for letter in missing:
        emoji = unicodedata.category(letter) in ("So", "Sk", "Cn") and ord(letter) >= 0x2190
        packages.add(PACKAGES.get("EMOJI" if emoji else unicodedata.name(letter, "NONE").split()[0], OTHER_PACKAGE))
    return f"sudo apt install {' '.join(sorted(packages))}"


@cache
def _fonts_for(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    from matplotlib import font_manager

    families = [DEFAULT]
    left = {letter for letter in letters if not letter.isspace() and unicodedata.category(letter) not in ("Cf", "Cc", "Mn")}
    left -= _letters_of(font_manager.findfont(DEFAULT), frozenset(left))
    if left:
        known = sorted(font_manager.fontManager.ttflist, key=_preference)
        for font in known:
            if font.name in families or font.name.startswith("Last Resort"):  # Last Resort has a box for every character
                continue
            if has := _letters_of(font.fname, frozenset(left)):
                families.append(font.name)
                left -= has
            if not left:
                break
    return tuple(families), frozenset(left)


def _preference(font: Any) -> tuple[Any, ...]:
    """A sort key: upright sans-serif fonts of normal weight first, in the same order on every machine."""
    weight = font.weight if isinstance(font.weight, int) else 400
    return (
        font.style != "normal",
        "serif" in font.name.lower(),
        "sans" not in font.name.lower(),
        abs(weight - 400),
        font.name,
        font.fname,
    )


def _letters_of(path: str, letters: frozenset[str]) -> set[str]:
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        return {letter for letter in letters if font.get_char_index(ord(letter))}
    except (RuntimeError, OSError):  # a bitmap font, such as coloured emoji, or a damaged one
        return set()


@cache
def _warn(missing: str) -> None:
    log.warning(
        "No font on this machine has %s: pictures name such labels by their number in validate.labels. To see them: %s", missing[:20],
        remedy(missing),
    )  # fmt: skip
