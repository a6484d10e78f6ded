"""`evergreen retrain` on a trained checkout, by the real command."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.flows.conftest import Checkout


def put_dark_digits(inbox: Path, items: int) -> None:
    """Digits at two thirds of their light, which the data set has not seen, settled long ago."""
    digits = load_digits()
    for number in range(items):
        path = inbox / str(digits.target[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[number] * (255 / 16) * 0.66).astype(np.uint8)
        path.write_bytes(bytes(cv2.imencode(".png", pixels)[1]))


@pytest.mark.servers
def test_from_an_inbox_through_drift_to_a_new_version_and_then_there_is_nothing_to_do(checkout: Checkout) -> None:
    early = checkout.evergreen("retrain", "quickstart", "--json")
    assert early.status == 0, early.err
    assert early.json["trained"] is False and early.json["stages"].keys() == {"receive", "look", "decide"}
    assert early.json["energy_wh"] < 1
    put_dark_digits(checkout.root / "inbox" / "quickstart", 200)
    code = "import evergreen.inbox as inbox; inbox.SETTLED_SECONDS = -1; from flows.cli import main; main()"
    done = checkout.run("python", "-c", code, "retrain", "quickstart", "--json")
    assert done.status == 0, done.err
    summary = done.json
    assert summary["trained"] and summary["stages"]["receive"]["state"] == summary["stages"]["train"]["state"] == "ran"
    assert any(reason.startswith("drift: brightness") for reason in summary["reasons"])
    assert any(reason.startswith("200 new items") for reason in summary["reasons"])
    assert summary["model_version"] == 2
    left = list((checkout.root / "inbox" / "quickstart").glob("[0-9]/*"))
    assert left == [] and len(list((checkout.root / "inbox/quickstart/.taken").rglob("*.png"))) == 200
    again = checkout.evergreen("retrain", "quickstart")
    assert again.status == 0 and "quickstart: nothing to do: " in again.out
