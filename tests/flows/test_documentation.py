"""The README and the pages of docs/, walked through: every code block is run, in order, in one checkout.

What would take long, or needs what only a reader has, is replaced: `REPLACED` lists all of it. A block that says more than this
file knows fails: what is written for people is run as it is written.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from evergreen.environment import answers
from flows.servers import end_tree
from tests.flows.conftest import BIN, Checkout, Done, end_up, free_port, start_up
from tests.support.shipped import ROOT

pytestmark = pytest.mark.slow

PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
RUN = {"bash", "python", "yaml"}
SHOWN = {"text"}  # what a command prints, and drawings
REPLACED = {  # in the blocks, because …
    "make run": "make -o .venv/.installed run",  # … the requirements are installed
    "make test": "make -n test",  # … it is what runs this test
    "pytest -q tests": "pytest -q --collect-only tests",  # … they run beside this test
    "/path/to/images": "photographs",
    "--budget-wh 5": "--budget-wh 5 --trials 1",  # … of the time
    "evergreen review ": "true ",  # … it runs until Ctrl-C: tests/flows/test_review.py opens its page
    "evergreen up ": "true ",  # … it runs until Ctrl-C: the fixture `addresses` starts and ends it
}


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        page: the file that it stands in, relative to the checkout.
        line: its first line, from 1.
        language: the word behind the fence.
        text: what stands inside.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        for token in MarkdownIt().parse((ROOT / page).read_text(encoding="utf-8")):
            if token.type in ("fence", "code_block"):
                assert token.map is not None
                yield Block(page, token.map[0] + 2, token.info.strip(), token.content)


def excerpt_of(block: Block) -> str | None:
    """The file that a block is taken from, which its first line names; None where it is none."""
    named = re.match(r"# (tests/\S+\.py)\n", block.text)
    return named[1] if named else None


@dataclass(frozen=True)
class Walk:
    """A reader's checkout, with the files that the blocks name."""

    checkout: Checkout
    environment: dict[str, str]

    def take(self, step: str) -> Done:
        """Do as a line says: a shell's own signs are for a shell, a plain `evergreen …` runs with the libraries ready."""
        if step.startswith("evergreen ") and not set(step) & set("|&;<>$`*()#"):
            return self.checkout.evergreen(*shlex.split(step)[1:], timeout=900, **self.environment)
        return self.bash(f"source .venv/bin/activate\n{step}")

    def bash(self, text: str, **environment: str) -> Done:
        reported = self.environment | environment
        return self.checkout.run("bash", "-euo", "pipefail", "-c", text, timeout=900, **reported)


def picture(label: int, number: int, side: int = 24) -> bytes:
    """Stripes whose direction and colour are the label's, as PNG."""
    random = np.random.default_rng([label, number])
    y, x = np.mgrid[0:side, 0:side] / side
    wave = np.sin(2 * np.pi * 3 * (x * np.cos(label) + y * np.sin(label)) + random.uniform(0, 6))
    colour = np.array([[200, 80, 60], [60, 80, 200]][label])
    pixels = 64 + 40 * wave[..., None] + 0.5 * colour + random.normal(0, 12, (side, side, 3))
    encoded = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def put_pictures(folder: Path, numbers: range) -> None:
    for label, name in enumerate(("bolt", "nut")):
        (folder / name).mkdir(parents=True)
        for number in numbers:
            (folder / name / f"{number:03d}.png").write_bytes(picture(label, number))


@pytest.fixture(scope="module")
def walk(trained: tuple[Checkout, object], tmp_path_factory: pytest.TempPathFactory) -> Walk:
    folder = tmp_path_factory.mktemp("walk")
    checkout = replace(trained[0].copy(folder / "evergreen"), hands_over=True)
    (checkout.root / ".venv").symlink_to(sys.prefix)
    put_pictures(checkout.root / "photographs", range(40))
    put_pictures(checkout.root / "monday", range(100, 112))
    (checkout.root / "corrections.csv").write_text("source,label\nbolt/003.png,nut\n")
    Image.open(io.BytesIO(picture(0, 7))).save(checkout.root / "photo.jpg")
    return Walk(checkout, {"EVERGREEN_SAMPLES": str(small_archives(folder / "samples", checkout))})


def small_archives(folder: Path, checkout: Checkout) -> Path:
    """Some pictures of the public archives, where those are on this machine, and their scenarios with one epoch of a small
    network."""
    folder.mkdir()
    samples = Path(os.environ.get("EVERGREEN_SAMPLES", ROOT.parent / "shared" / "data"))
    for scenario, archive, some in (
        ("cifar10", "cifar10.tar.gz", r".*/0?0[0-3]\d\.jpg"),
        ("inspection", "magnetic-tile.tar.gz", r".*"),
    ):
        path = checkout.root / "scenarios" / f"{scenario}.yaml"
        text = re.sub(r"(?m)^(  sha256: .*\n)", "", path.read_text())
        text = re.sub(r"(?m)^  min_items_per_label: .*", "  min_items_per_label: 1", text)
        text = re.sub(r"(?m)^  filters: .*\n", "", text)
        text = re.sub(r"(height|width): 224", r"\1: 64", text)
        path.write_text(re.sub(r"(?m)^  epochs: .*", "  epochs: 1\n  filters: 4\n  max_seconds: 5", text))
        if not (samples / archive).is_file():
            continue
        with tarfile.open(samples / archive) as whole, tarfile.open(folder / archive, "w:gz") as part:
            for member in whole:
                if member.isfile() and re.fullmatch(some, member.name):
                    part.addfile(member, whole.extractfile(member))
    return folder


def shortened(text: str) -> str:
    for said, run in REPLACED.items():
        text = text.replace(said, run)
    return text


def quick(walk: Walk) -> None:
    """Let `parts`, once it is there, take seconds."""
    path = walk.checkout.root / "scenarios" / "parts.yaml"
    if path.exists() and "settle_seconds" not in path.read_text():
        text = re.sub(r"(?m)^  epochs: .*", "  epochs: 2", path.read_text())
        section = "  settle_seconds: 0\n  min_new_items: 20\n"
        text = (
            text.replace("retraining:\n", f"retraining:\n{section}")
            if "retraining:\n" in text
            else f"{text}retraining:\n{section}"
        )
        path.write_text(text)


def test_every_block_says_what_it_is() -> None:
    assert {(str(block), block.language) for block in blocks() if block.language not in RUN | SHOWN} == set()


@pytest.fixture(scope="module")
def addresses(walk: Walk) -> Iterator[dict[str, str]]:
    """`evergreen up` over the walk's checkout, and what its addresses in the documentation are here."""
    prefect, mlflow, model = (free_port() for _ in range(3))
    running = start_up(walk.checkout, prefect, mlflow, **walk.environment)
    yield {f"127.0.0.1:{said}": f"127.0.0.1:{here}" for said, here in ((4200, prefect), (5000, mlflow), (5001, model))} | {
        "--port 5001": f"--port {model}"
    }
    end_up(running)
    assert running.process.returncode == 0


@pytest.fixture(scope="module")
def background() -> Iterator[list[psutil.Popen]]:
    """What a block starts to run on; ended afterwards."""
    started: list[psutil.Popen] = []
    yield started
    for process in started:
        end_tree(process)


@pytest.mark.parametrize("block", [block for block in blocks() if block.language in RUN and not excerpt_of(block)], ids=str)
def test_the_block_runs_as_it_is_written(
    block: Block, walk: Walk, background: list[psutil.Popen], request: pytest.FixtureRequest
) -> None:
    text = shortened(block.text)
    if "127.0.0.1:" in text:
        for said, here in request.getfixturevalue("addresses").items():
            text = text.replace(said, here)
    if block.language == "yaml":
        into_its_scenario(block, walk)
    elif block.language == "python":
        done = walk.checkout.run(sys.executable, "-c", text, **walk.environment)
        assert done.status == 0, done.err
    elif "mlflow models serve" in text:
        background.append(serve(text, walk))
    else:
        for step in steps(text):
            if re.match(r"evergreen run (cifar10|inspection)\b", step) and not any(
                Path(walk.environment["EVERGREEN_SAMPLES"]).iterdir()
            ):
                pytest.skip("no real data: set EVERGREEN_SAMPLES")
            done = walk.take(step)
            assert done.status == 0, f"{step}\n{done.err}\n{done.out}"
            quick(walk)


def steps(text: str) -> list[str]:
    """The commands of a block, one at a time."""
    return [line for line in map(str.strip, text.replace("\\\n", " ").splitlines()) if line and not line.startswith("#")]


def serve(text: str, walk: Walk) -> psutil.Popen:
    """Start a server, and return when it answers."""
    log = walk.checkout.root / "served.log"
    with open(log, "wb") as output:
        process = psutil.Popen(
            ["bash", "-euc", f"source .venv/bin/activate\n{text}"], cwd=walk.checkout.root, stdin=subprocess.DEVNULL,
            env=walk.checkout.environment | walk.environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    port = re.search(r"--port (\d+)", text)
    assert port
    until = time.monotonic() + 240
    while not answers(f"http://127.0.0.1:{port[1]}/ping"):
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.2)
    return process


def into_its_scenario(block: Block, walk: Walk) -> None:
    """Write the settings into the scenario that the block names, and ask for an estimate, which reads all of them."""
    named = re.match(r"# (scenarios/[\w-]+\.yaml)\n", block.text)
    assert named, f"{block} begins with the file that it belongs to"
    path = walk.checkout.root / named[1]
    path.write_text(path.read_text() + block.text)
    done = walk.checkout.evergreen("run", path.stem, "--estimate", **walk.environment)
    assert done.status == 0, done.err


def commands() -> list[str]:
    """Every `evergreen …` and `make …` that stands in the text of the README and the guide, outside the blocks."""
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/guide.md"))
    text = re.sub(r"(?ms)^```.*?^```", "", pages)
    return sorted(set(re.findall(r"`((?:evergreen|make) [^`]+)`", text)))


@pytest.mark.parametrize("command", commands())
def test_a_command_in_the_text_is_one_that_there_is(command: str, walk: Walk) -> None:
    program, name, *_ = command.split()
    if program == "make":
        done = walk.bash(f"make -n -o .venv/.installed -o .venv/.installed-dev {name}")
    else:
        done = subprocess_help(walk, name)
    assert done.status == 0, done.err


def subprocess_help(walk: Walk, name: str) -> Done:
    done = subprocess.run(
        [BIN / "python", "-m", "flows.cli", name, "--help"], cwd=walk.checkout.root, env=walk.checkout.environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)
