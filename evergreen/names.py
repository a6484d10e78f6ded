"""Names of files and labels: detecting their encoding, and normalizing text.

Names are too short for a general detector: charset-normalizer 3.5 takes "猫 狗 马" in GBK for Korean. Here, each candidate
encoding is scored by how common the decoded characters are.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable

WINDOWS = ("cp437", "cp850", "cp1252")  # Western encodings in a .zip from Windows, most common first
UNIX = ("cp1252", "cp437", "cp850")  # Western encodings in a folder or a .tar
OTHERS = ("gb18030", "cp932", "big5", "cp949", "cp852", "cp1250", "cp866", "cp1251", "cp1253", "cp737", "cp1256")
NAMES_LOOKED_AT = 5_000  # distinct folder and file names; more would not improve the guess

# Syllables that make up most of Korean text. Chinese text that is wrongly decoded as Korean mostly gives other syllables.
COMMON_HANGUL = frozenset(
    "이다는에의가을를한하고지은로도사기어리나시아인자대정스그서과해일수만있장들부여전주상보공구제동라성조연비치으원소선무관유경차신간안오우면마용게것중"
    "계미트저세화위실없르산민양분년바회생방내발금모말물개음불학영식거국적반재행드출문심달남단입명강규날레월천복품권요운결토감집점라류과초란교래야북호벌"
    "손눈꽃새곰소닭돼개강고양너까백황흑적청록별병변형색높낮좋나쁨합격량앞뒤좌우등급정사진힘긁균열찍결함폐"
)
ASIAN = {  # two-byte encodings: the first bytes of common characters, and of rarer ones
    "gb18030": (range(0xB0, 0xD8), range(0xD8, 0xF8)),
    "cp932": (range(0x88, 0x98), range(0x98, 0xFB)),
    "big5": (range(0xA4, 0xC7), range(0xC9, 0xFA)),
    "cp949": (range(0xB0, 0xC9), range(0xCA, 0xFE)),
}


class Decoder:
    """Turns the names of one source into text, all in one encoding: UTF-8 if all of them are valid UTF-8, else the most
    plausible one.

    Attributes:
        assumed: the guessed encoding; None if no guess has been necessary so far.
    """

    def __init__(self, names: Callable[[], Iterable[bytes]], encoding: str | None, usual: tuple[str, ...]) -> None:
        """
        Args:
            names: returns all names of the source. Called once, at the first name that isn't ASCII.
            encoding: the encoding to use if the user has set one; None to guess it.
            usual: the usual encodings of Western names in such a source.
        """
        self._names, self._encoding, self._usual = names, encoding, usual
        self.assumed: str | None = None

    def __call__(self, raw: bytes) -> str:
        """Decode a name; bytes that are invalid in the encoding become `\\xNN`."""
        if raw.isascii():
            return raw.decode()
        if self._encoding is None:
            self._encoding = guess_encoding(self._names(), self._usual)
            self.assumed = self._encoding if self._encoding != "utf-8" else None
        if self.assumed is not None:  # a folder may contain names in both encodings
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
    """Normalize a label for comparisons: to Unicode's normal form C (macOS writes "é" as two characters), without surrounding
    white space."""
    return unicodedata.normalize("NFC", label).strip()


def alike(label: str) -> str:
    """A key that is the same for labels that differ only in case, spacing, hyphens or character width, such as "Cat" and "cat",
    or "no_dog" and "No-Dog"."""
    folded = unicodedata.normalize("NFKC", label).casefold()
    return "".join(letter for letter in folded if letter.isalnum()) or folded


def markdown(text: str) -> str:
    """Escape a user's text, such as a label, so that Markdown shows it literally, also in table cells and where HTML is
    allowed."""
    escaped = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def near(label: str, known: Iterable[str]) -> str | None:
    """The known label that was probably meant by this one; None if none is similar."""
    by_form = {alike(one): one for one in known}
    found = difflib.get_close_matches(alike(label), by_form, n=1, cutoff=0.75)
    return by_form[found[0]] if found else None


def guess_encoding(names: Iterable[bytes], usual: tuple[str, ...] = UNIX) -> str:
    """The most plausible encoding of all these names; `utf-8` if they are valid in it, or if no other encoding is plausible."""
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
        score = (sum(given) - 2.0 * (len(scores) - len(given))) / len(scores)  # a few names may be in another encoding
        if score > best_score + 1e-9:
            best, best_score = encoding, score
    return best


def _score(raw: bytes, encoding: str) -> float | None:
    """How plausible a name is in an encoding: about 1 if all its non-ASCII characters are common, below 0 if they are symbols;
    None if it can't be decoded."""
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        return None
    points = []
    for index, letter in enumerate(text):
        if not letter.isascii():
            before = text[index - 1] if index else ""
            after = text[index + 1 : index + 2]
            points.append(_usual(letter, encoding) + _fits(letter, before, after))
    return sum(points) / max(1, len(points))


def _usual(letter: str, encoding: str) -> float:
    category = unicodedata.category(letter)
    if category in ("Lu", "Ll", "Mn", "Mc") and not letter >= "\uff00":
        return 1.0
    # Text in another encoding, decoded as Japanese, has many half-width letters.
    if category != "Lo" or letter >= "\uff00" or letter in "ªº":
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
    """A penalty, 0 or below, for implausible neighbours: another script, a capital within a word, or only accented letters."""
    beside = [one for one in (before, after) if one.isalpha()]
    script = _script(letter)
    strange = sum(_script(one) != script for one in beside) * (0.6 if script == "CJK" else 1.5)
    if (letter.isupper() and before.islower()) or (letter.islower() and after.isupper()):
        strange += 0.8
    if script == "LATIN" and beside and not any(one.isascii() for one in beside):
        strange += 0.8
    return -strange


def _script(letter: str) -> str:
    """The script: the first word of the letter's Unicode name; the scripts that Japanese mixes count as one."""
    word = unicodedata.name(letter, "NONE").split()[0]
    return "CJK" if word in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA") else word
