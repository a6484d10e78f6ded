"""What a digest of code sees, and what it doesn't."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evergreen.code_digest import Digests, Sources
from tests.support.shipped import ROOT

CODE = '''
"""About numbers."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from {package} import words
from {package}.errors import Refused
from {package}.shapes import Circle

if TYPE_CHECKING:
    from {package}.unused import Thing

log = logging.getLogger("x")
LIMIT = 3  # of all
OTHER = 4


def result(number: int, thing: Thing | None = None) -> float:
    """The result."""
    if number > LIMIT:
        raise Refused(f"{{number}} is too large", fix="take less")
    log.info("working on %s", number)
    circle: Circle = Circle(number)
    error = Refused("not so", why="as it is") if number < 0 else None
    return math.sqrt(circle.area()) + helped(f"a{{number!r:>5}}b" "c")


def helped(text):
    from {package}.late import size

    return size(text)


def page(number):
    return words.table("Number", number)
'''
SHAPES = """
class Shape:
    def area(self):
        return 1.0

    def __len__(self):
        return 2

    def __str__(self):
        return "a shape"

    def describe(self):
        return "round"


class Circle(Shape):
    side = 1

    def __init__(self, radius):
        self.radius = radius

    def area(self):
        return 3 * self.radius**2

    def colour(self):
        return "red"
"""
FILES = {
    "numbers.py": CODE,
    "shapes.py": SHAPES,
    "errors.py": "class Refused(Exception):\n    pass\n",
    "words.py": "def table(*words):\n    return words\n",
    "late.py": "def size(text):\n    return len(text)\n\n\ndef unused():\n    return 1\n",
    "unused.py": "class Thing:\n    pass\n",
}
numbers = itertools.count()


def digests(folder: Path, *changes: tuple[str, str, str], excluded: tuple[str, ...] = ()) -> Digests:
    """Of `result` in a package with these changes: file, old text and new text."""
    top = f"package{next(numbers)}"
    package = folder / top / "pack"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    files = {name: text.replace("{package}", "pack").replace("{{", "{").replace("}}", "}") for name, text in FILES.items()}
    for file, old, new in changes:
        assert old in files[file], old
        files[file] = files[file].replace(old, new)
    for name, text in files.items():
        (package / name).write_text(text)
    return Digests(Sources(["pack"], {"pack.errors": None}, folder / top), ["pack.numbers:result"], excluded)


def test_it_reaches_what_the_result_uses_and_no_more(tmp_path: Path) -> None:
    assert [part for part in digests(tmp_path).parts if not part.endswith(":")] == [
        "pack.errors:Refused", "pack.late:size", "pack.numbers:LIMIT", "pack.numbers:helped", "pack.numbers:result",
        "pack.shapes:Circle", "pack.shapes:Circle.__init__", "pack.shapes:Circle.area",
        "pack.shapes:Shape", "pack.shapes:Shape.__len__", "pack.shapes:Shape.area",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        ("numbers.py", "# of all", "# of none"),
        ("numbers.py", '"""The result."""', '"""Another one."""'),
        ("numbers.py", '    """The result."""\n', ""),
        ("numbers.py", "is too large", "is far too large"),
        ("numbers.py", 'fix="take less"', 'fix="take fewer", help=number'),
        ("numbers.py", '"not so", why="as it is"', '"never"'),
        ("numbers.py", "working on %s", "at %s"),
        ("numbers.py", "OTHER = 4", "OTHER = 5"),
        ("numbers.py", "thing: Thing | None", "thing: Thing"),
        ("numbers.py", "circle: Circle = ", "circle = "),
        ("numbers.py", '"Number"', '"A number"'),
        ("numbers.py", "\n\n\ndef", "\n\n\n\n\ndef"),
        ("numbers.py", "LIMIT = 3  # of all\nOTHER = 4", "OTHER = 4\nLIMIT = 3"),
        ("numbers.py", 'b" "c"', 'bc"'),
        ("shapes.py", "a shape", "some shape"),
        ("shapes.py", "round", "square"),
        ("shapes.py", "red", "blue"),
        ("late.py", "return 1", "return 2"),
        ("words.py", "return words", "return words[1:]"),
    ],
)  # fmt: skip
def test_wording_comments_and_what_the_result_does_not_use_change_nothing(tmp_path: Path, change: tuple[str, str, str]) -> None:
    assert digests(tmp_path).by_module == digests(tmp_path, change).by_module


@pytest.mark.parametrize(
    "change",
    [
        ("numbers.py", "LIMIT = 3", "LIMIT = 3.0"),
        ("numbers.py", "number > LIMIT", "number >= LIMIT"),
        ("numbers.py", "raise Refused", "raise ValueError"),
        ("numbers.py", "number: int", "number: int = 2"),
        ("numbers.py", "import math", "import cmath as math"),
        ("numbers.py", "!r:>5", "!r:>6"),
        ("numbers.py", "!r:", "!s:"),
        ("numbers.py", 'b" "c"', 'b" "d"'),
        ("numbers.py", "helped(f", "len(f"),
        ("shapes.py", "2\n", "3\n"),
        ("shapes.py", "3 * self", "3.14 * self"),
        ("shapes.py", "class Circle(Shape)", "class Circle"),
        ("late.py", "len(text)", "len(text) + 1"),
    ],
)
def test_another_result_has_another_digest(tmp_path: Path, change: tuple[str, str, str]) -> None:
    assert digests(tmp_path).by_module != digests(tmp_path, change).by_module


def test_what_is_excluded_does_not_count_nor_does_what_only_it_uses(tmp_path: Path) -> None:
    found = digests(tmp_path, excluded=("pack.numbers:helped", "pack.shapes:Circle.area", "pack.errors", "pack.unused"))
    assert not {"pack.late:size", "pack.shapes:Circle.area", "pack.numbers:helped", "pack.errors:Refused"} & set(found.parts)
    assert found.met == {"pack.numbers:helped", "pack.shapes:Circle.area", "pack.errors"}


def test_what_a_library_calls_counts_though_nothing_here_names_it(tmp_path: Path) -> None:
    change = ("shapes.py", "class Shape:", "import threading\n\n\nclass Shape(threading.Thread):")
    assert {"pack.shapes:Circle.colour", "pack.shapes:Shape.describe"} <= set(digests(tmp_path, change).parts)
    assert "pack.shapes:Shape.__str__" not in digests(tmp_path, change).parts


def test_names_in_texts_are_followed(tmp_path: Path) -> None:
    by_name = ("numbers.py", "return size(text)", "return size('pack.words') + getattr(text, 'colour')")
    assert {"pack.words:table", "pack.shapes:Circle.colour"} <= set(digests(tmp_path, by_name).parts)


def test_a_module_that_is_in_no_package_counts_too() -> None:
    assert "textwrap:TextWrapper.wrap" in Digests(Sources(["textwrap"], {}), ["textwrap:wrap"], ()).parts


def test_a_root_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="evergreen.figures:nothing"):
        Digests(Sources(["evergreen"], {}), ["evergreen.figures:nothing"], ())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_number_is_seen_wherever_it_stands_and_a_comment_nowhere(tmp_path: Path, data: st.DataObject) -> None:
    """On a real module, all of whose definitions are roots."""
    text = (ROOT / "evergreen" / "preparation" / "splits.py").read_text()
    lines, tree = text.splitlines(keepends=True), ast.parse(text)
    at = data.draw(st.integers(0, len(lines)))
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    inside = any(node.lineno <= at < (node.end_lineno or 0) for node in strings)
    continued = at > 0 and lines[at - 1].rstrip().endswith("\\")
    commented = "".join([*lines[:at], *([] if inside or continued else ["# said here\n"]), *lines[at:]])
    counted = [
        node
        for top in tree.body if isinstance(top, ast.Assign | ast.FunctionDef)
        for node in ast.walk(top if isinstance(top, ast.Assign) else ast.Module([s for s in top.body if not _says(s)], []))
        if isinstance(node, ast.Constant) and type(node.value) in (int, float)
    ]  # fmt: skip
    number = data.draw(st.sampled_from(counted))
    line = lines[number.lineno - 1].encode()
    changed = line[: number.col_offset] + f"1{number.value!r}".encode() + line[number.end_col_offset :]
    other = "".join([*lines[: number.lineno - 1], changed.decode(), *lines[number.lineno :]])

    def digest(source: str) -> dict[str, str]:
        folder = tmp_path / f"module{next(numbers)}" / "one"
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "splits.py").write_text(source)
        (folder / "all.py").write_text("from one import splits\n\n\ndef everything():\n    return list(map(print, [splits]))\n")
        sources = Sources(["one", "evergreen"], {}, folder.parent)
        return Digests(sources, ["one.all:everything"], ()).by_module

    assert digest(text) == digest(commented)
    assert digest(text) != digest(other)


def _says(statement: ast.stmt) -> bool:
    """Whether there is a refusal in it, whose text doesn't count."""
    return any(isinstance(node, ast.Raise | ast.Assert) for node in ast.walk(statement))


def other_pythons() -> list[str]:
    """Interpreters of the supported versions that can be started here."""
    found = []
    for minor in (11, 12, 13):
        folders = [*Path.home().glob(f".pyenv/versions/3.{minor}.*/bin"), Path("/usr/bin"), Path("/usr/local/bin")]
        found += [str(path) for folder in folders if (path := folder / f"python3.{minor}").exists()][:1]
    return found


def test_every_version_of_python_gives_the_same_digest(tmp_path: Path) -> None:
    """A stored one, which every version that runs the tests must give; and those of other interpreters where there are some."""
    script = (
        "from pathlib import Path; from evergreen.code_digest import Digests, Sources; "
        f"print(Digests(Sources(['evergreen'], {{}}, Path({str(ROOT)!r})), ['evergreen.preparation.splits:assign', "
        "'evergreen.kinds.classify.pictures:commonest_mistakes', 'evergreen.kinds.classify.judge:ImageJudge'], ()).by_module)"
    )
    reported = {
        python: subprocess.run([python, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for python in {sys.executable, *other_pythons()}
    }
    assert len(set(reported.values())) == 1
    assert digests(tmp_path).by_module == {
        "pack.errors": "9740f0e5716cad01",
        "pack.late": "9b4ca0ec9ddc7721",
        "pack.numbers": "e8a3648c5cfe38f4",
        "pack.shapes": "eff65c6c827fdbe5",
    }
