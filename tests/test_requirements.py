"""The lock files: hash-checked, from no named registry, each package in one of them."""

from __future__ import annotations

import re

import pytest

from tests.support.shipped import ROOT

LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-uv.lock"]


def packages(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_a_hash_and_no_registry_is_named(lock: str) -> None:
    text = (ROOT / lock).read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text
    assert "--index-url" not in text


def test_the_development_lock_holds_only_what_it_adds() -> None:
    added = packages("requirements-dev.lock")
    assert {"mypy", "pytest", "pytest-cov", "ruff"} <= added
    assert added & packages("requirements.lock") == set()
