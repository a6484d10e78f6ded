"""Blocks of the documentation that begin with the name of a file stand in that file."""

from __future__ import annotations

import re

import pytest

from tests.flows.test_documentation import Block, blocks, excerpt_of
from tests.support.shipped import ROOT

LEFT_OUT = re.compile(r"(?m)^ *# …\n")


@pytest.mark.parametrize("block", [block for block in blocks() if excerpt_of(block)], ids=str)
def test_an_excerpt_stands_in_its_file(block: Block) -> None:
    name = excerpt_of(block)
    assert name is not None
    text, _, said = (ROOT / name).read_text(encoding="utf-8"), *block.text.split("\n", 1)
    at = 0
    for part in LEFT_OUT.split(said):
        found = text.find(part.strip("\n"), at)
        assert found >= 0, f"{block}: {name} does not have, in this order:\n{part}"
        at = found + len(part.strip("\n"))
