"""Drift and promotions are reported to Prefect, where there is one."""

from __future__ import annotations

import logging

import pytest

from evergreen.monitoring.drift import Drift
from flows.events import emit_drift, emit_promotion


def drift(drifted: bool) -> Drift:
    return Drift(drifted=drifted, alpha=0.05, items=500, reference_items=2000, reason="they are darker", features=())


def test_without_a_server_drift_is_only_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("evergreen"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="evergreen"):
        assert emit_drift("quickstart", drift(True)) is False
        assert emit_promotion("quickstart", 2, "it is better") is False
    assert "they are darker" in caplog.text and "version 2 is the champion" in caplog.text


def test_a_comparison_without_drift_is_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # nothing answers there, and nothing is asked
    assert emit_drift("quickstart", drift(False)) is False
