"""That the benchmarks still fit the code that they measure: mypy checks their types, and here each is imported. Measuring takes
too long for a test."""

from __future__ import annotations

import importlib

import pytest

from tests.support.shipped import ROOT


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "bench").glob("*.py") if path.stem != "__init__"))
def test_a_benchmark_can_be_imported(name: str) -> None:
    importlib.import_module(f"bench.{name}")
