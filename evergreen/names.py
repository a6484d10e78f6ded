"""Names of files and labels: bytes to text in the encoding that they were written in, and text in one form.

Names are short, which is too little for a general detector: charset-normalizer 3.5 takes "猫 狗 马" in GBK for Korean. What tells encodings
apart here is how common the characters are that the bytes would be, so each candidate is scored by that.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable

WINDOWS = ("cp437", "cp850", "cp1252")  # what a .zip from Windows uses in the West, most usual first
UNIX = ("cp1252", "cp437", "cp850")  # what a folder or a .tar uses there
OTHERS = ("gb18030", "cp932", "big5", "cp949", "cp852", "cp1250", "cp866", "cp1251", "cp1253", "cp737", "cp1256")
NAMES_LOOKED_AT = 5_000  # different folder and file names: more tell no more

# Syllables that make up most of Korean text; other syllables of the same standard are what Chinese text looks like in it.
COMMON_HANGUL = frozenset(
    "이다는에의가을를한하고지은로도사기어리나시아인자대정스그서과해일수만있장들부여전주상보공구제동라성조연비치으원소선무관유경차신간안오우면마용게것중"
    "계미트저세화위실없르산민양분년바회생방내발금모말물개음불학영식거국적반재행드출문심달남단입명강규날레월천복품권요운결토감집점라류과초란교래야북호벌"
    "손눈꽃새곰소닭돼개강고양너까백황흑적청록별병변형색높낮좋나쁨합격량앞뒤좌우등급정사진힘긁균열찍결함폐"
)
ASIAN = {  # of two-byte encodings: the first bytes of characters that everyone uses, and of the rarer ones
    "gb18030": (range(0xB0, 0xD8), range(0xD8, 0xF8)),
    "cp932": (range(0x88, 0x98), range(0x98, 0xFB)),
    "big5": (range(0xA4, 0xC7), range(0xC9, 0xFA)),
    "cp949": (range(0xB0, 0xC9), range(0xCA, 0xFE)),
}


class Decoder:
    """Turns the names of one source into text, all in one encoding: UTF-8 if all of them are valid UTF-8, else the most plausible one.

    Attributes:
        assumed: the encoding that was guessed; None where none had to be, so far.
    """

    def __init__(self, names: Callable[[], Iterable[bytes]], encoding: str | None, usual: tuple[str, ...]) -> None:
        """
        Args:
            names: gives all names of the source. Called once, when the first name that isn't ASCII is met.
            encoding: the one to use, where the user says so.
            usual: what Western names of such a source are in.
        """
        self._names, self._encoding, self._usual = names, encoding, usual
        self.assumed: str | None = None

    def __call__(self, raw: bytes) -> str:
        """The name; bytes that the encoding does not know become `\\xNN`."""
        if raw.isascii():
            return raw.decode()
        if self._encoding is None:
            self._encoding = guess_encoding(self._names(), self._usual)
            self.assumed = self._encoding if self._encoding != "utf-8" else None
        if self.assumed is not None:  # a folder may hold names of both kinds
            try:
                return raw.decode(self._encoding)
            except UnicodeDecodeError:
                return readable_name(raw)
        return raw.decode(self._encoding, "backslashreplace")


def readable_name(name: str | bytes) -> str:
    """A path as text: bytes that are not UTF-8 become `\\xNN`."""
    raw = os.fsencode(name) if isinstance(name, str) else name
    return raw.decode("utf-8", "backslashreplace")


def tidy(label: str) -> str:
    """A label in the form that labels are compared in: Unicode's normal form C (macOS writes "é" as two characters), and no white space
    around it."""
    return unicodedata.normalize("NFC", label).strip()


def alike(label: str) -> str:
    """The same for labels that differ in case, spacing, hyphens or width only: such as "Cat" and "cat", "no_dog" and "No-Dog"."""
    folded = unicodedata.normalize("NFKC", label).casefold()
    return "".join(letter for letter in folded if letter.isalnum()) or folded


def markdown(text: str) -> str:
    """A text that people chose, such as a label, as Markdown that shows it as it stands, also in the cell of a table and where HTML is let
    through."""
    escaped = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def near(label: str, known: Iterable[str]) -> str | None:
    """The known label that this one was probably meant to be; None where none is near."""
    by_form = {alike(one): one for one in known}
    found = difflib.get_close_matches(alike(label), by_form, n=1, cutoff=0.75)
    return by_form[found[0]] if found else None


def guess_encoding(names: Iterable[bytes], usual: tuple[str, ...] = UNIX) -> str:
    """The encoding that all these names are written in: `utf-8` where they are valid as that, or where nothing else is plausible."""
    parts: set[bytes] = set()
    for name in names:
        parts.update(part for part in name.replace(b"\\", b"/").split(b"/") if not part.isascii())
        if len(parts) >= NAMES_LOOKED_AT:
            break
    if all(_score(part, "utf-8") is not None for part in parts):
        return "utf-8"
    best, best_score = "utf-8", 0.0
    for encoding in (*usual, *OTHERS):
        scores = [_score(part, encoding) for part in parts]
        given = [score for score in scores if score is not None]
        score = (sum(given) - 2.0 * (len(scores) - len(given))) / len(scores)  # a few names may be in another
        if score > best_score + 1e-9:
            best, best_score = encoding, score
    return best


def _score(raw: bytes, encoding: str) -> float | None:
    """How plausible a name is in an encoding: about 1 where all its characters are usual ones, below 0 where they are signs and symbols;
    None where it can't be decoded."""
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        return None
    points = []
    for place, letter in enumerate(text):
        if not letter.isascii():
            before = text[place - 1] if place else ""
            after = text[place + 1 : place + 2]
            points.append(_usual(letter, encoding) + _fits(letter, before, after))
    return sum(points) / max(1, len(points))


def _usual(letter: str, encoding: str) -> float:
    category = unicodedata.category(letter)
    if category in ("Lu", "Ll", "Mn", "Mc") and not letter >= "\uff00":
        return 1.0
    if (
        category != "Lo" or letter >= "\uff00" or letter in "ªº"
    ):  # half-width letters are what other encodings look like in Japanese
        return -1.0
    if encoding in ASIAN:
        if "\u3040" <= letter <= "\u30ff":
            return 1.2 if encoding == "cp932" else -0.5
        common, rare = ASIAN[encoding]
        first = letter.encode(encoding)[0]
        if "\uac00" <= letter <= "\ud7a3":
            return 1.2 if letter in COMMON_HANGUL else 0.4
        return 1.0 if first in common else 0.5 if first in rare else 0.1
    return 1.0


def _fits(letter: str, before: str, after: str) -> float:
    """What the letters beside it say: another script, a capital within a word and accents only are not what people write."""
    beside = [one for one in (before, after) if one.isalpha()]
    script = _script(letter)
    strange = sum(_script(one) != script for one in beside) * (0.6 if script == "CJK" else 1.5)
    if (letter.isupper() and before.islower()) or (letter.islower() and after.isupper()):
        strange += 0.8
    if script == "LATIN" and beside and not any(one.isascii() for one in beside):
        strange += 0.8
    return -strange


def _script(letter: str) -> str:
    """The first word of its Unicode name; the scripts that Japanese mixes count as one."""
    word = unicodedata.name(letter, "NONE").split()[0]
    return "CJK" if word in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA") else word
