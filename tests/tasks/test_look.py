"""look and decide: what has come in since a small real champion was trained, and whether it is a reason to train again."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest

from evergreen.errors import EvergreenError, WrongUse
from evergreen.images import decode
from evergreen.registry import crown
from evergreen.scenario import Scenario
from tasks.decide import decide, remember_tried
from tasks.look import News, look, page
from tests.conftest import ROOT
from tests.tasks.test_preprocess import add_batch, digit
from tests.tiny import NAME, Tiny


@pytest.fixture
def champion(registered: Tiny) -> Tiny:
    """Version 1, of the digits 0 to 499, is the champion."""
    crown(registered.workspace, NAME, 1)
    return registered


def arrive(tiny: Tiny, numbers: range, light: float = 1.0, label: str | None = None) -> None:
    def items() -> Any:
        for number in numbers:
            image, right = digit(number)
            dark = (decode(image, 1)[..., 0] * light).astype(np.uint8)
            yield bytes(cv2.imencode(".png", dark)[1]), label or right, None, None

    add_batch(tiny.workspace, items())


def with_settings(scenario: Scenario, **settings: Any) -> Scenario:
    return scenario.model_copy(update={"retraining": scenario.retraining.model_copy(update=settings)})


def reasons(tiny: Tiny, **settings: Any) -> tuple[str, ...]:
    scenario = with_settings(tiny.scenario, **settings)
    return decide(scenario, tiny.workspace, look(scenario, tiny.workspace)).reasons


def test_nothing_new_is_no_reason_however_old_the_champion(champion: Tiny) -> None:
    news = look(champion.scenario, champion.workspace)
    assert (news.new_items, news.old_items, news.champion) == (0, 500, 1)
    decision = decide(with_settings(champion.scenario, max_age_days=1e-9), champion.workspace, news)
    assert str(decision) == "nothing to do: nothing has come in since the champion was trained."


def test_few_items_like_the_old_ones_are_no_reason(champion: Tiny) -> None:
    arrive(champion, range(500, 540))
    news = look(champion.scenario, champion.workspace)
    assert (news.new_items, news.looked_at, news.drift and news.drift.drifted) == (40, 40, False)
    assert news.right > 25
    assert str(decide(champion.scenario, champion.workspace, news)).startswith("nothing to do: the new items are few")


def test_enough_new_items_are_a_reason(champion: Tiny) -> None:
    arrive(champion, range(500, 560))
    assert reasons(champion, drift_alpha=None) == ("60 new items, 12.0% of the 500 learned from (from 10.0% on)",)
    assert reasons(champion, drift_alpha=None, min_new_share=None) == ()


def test_darkened_images_are_a_reason_in_words(champion: Tiny) -> None:
    arrive(champion, range(500, 540), light=0.6)
    (reason, *_) = reasons(champion)
    assert reason.startswith("drift: brightness") and "40 new items against" in reason
    table = page(champion.scenario, champion.workspace, look(champion.scenario, champion.workspace)).tables["drift"]
    assert table[0]["feature"] == "brightness" and table[0]["drifted"]


def test_worse_quality_on_new_items_is_a_reason_with_an_interval(champion: Tiny) -> None:
    arrive(champion, range(500, 540), label="3")
    (reason,) = reasons(champion, drift_alpha=None)
    assert reason.startswith("the champion gets ") and reason.endswith("less, with 95 % confidence")


def test_an_old_champion_is_a_reason_once_there_is_something_to_learn_from(champion: Tiny) -> None:
    arrive(champion, range(500, 501))
    assert reasons(champion, max_age_days=1e-9) == ("the champion is 0 days old (from 1e-09 on)",)
    assert reasons(champion) == ()  # of one item no drift can be told


def test_the_same_news_are_acted_upon_once(champion: Tiny) -> None:
    arrive(champion, range(500, 600))
    news = look(champion.scenario, champion.workspace)
    assert decide(champion.scenario, champion.workspace, news).reasons
    remember_tried(champion.scenario, champion.workspace, news)
    decision = decide(champion.scenario, champion.workspace, news)
    assert str(decision) == "nothing to do: these items were learned from already, and the gate kept the champion."
    arrive(champion, range(600, 610))
    assert reasons(champion)  # others came
    assert decide(champion.scenario, champion.workspace, dataclasses.replace(news, champion=2)).reasons  # another champion


def test_without_a_champion_there_is_nothing_to_compare_with(registered: Tiny) -> None:
    with pytest.raises(WrongUse, match="no version champion"):
        look(registered.scenario, registered.workspace)


def test_a_champion_without_a_reference_is_told(champion: Tiny) -> None:
    arrive(champion, range(500, 540))
    run_id = champion.client().get_model_version(f"evergreen-{NAME}", "1").run_id
    (reference,) = champion.root.glob(f"mlruns/**/{run_id}/artifacts/drift/reference.npz")
    reference.unlink()
    with pytest.raises(EvergreenError, match="has no drift/reference.npz"):
        look(champion.scenario, champion.workspace)


def test_looking_loads_no_tensorflow(champion: Tiny) -> None:
    arrive(champion, range(500, 540))
    code = (
        "import sys; from pathlib import Path; from evergreen.scenario import Scenario; from evergreen.workspace import Workspace; "
        "from tasks.look import look; from tasks.decide import decide; w = Workspace(Path(sys.argv[1])); "
        "s = Scenario.load(w.scenarios, 'quickstart'); print(decide(s, w, look(s, w))); assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(champion.root)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nothing to do")


def test_news_read_as_a_sentence() -> None:
    assert str(News(2, 3.0, 500, 40, ("00001-a",), None, 40, 38, 100, 97)) == (
        "40 items are new to version 2, which was trained from 500, 3.0 days ago; it gets 38 of 40 right."
    )
