"""promote: real versions of a small model against each other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from pydantic import TypeAdapter

from evergreen.data.dataset import batches, table
from evergreen.errors import EvergreenError, Unreachable, WrongUse
from evergreen.preparation.arrays import open_split
from evergreen.registry.models import aliases, connect, last_refusal, rollback, set_alias, set_champion
from tasks import preprocess
from tasks.evaluate import test_ids as ids_of_test_items
from tasks.promote import Promotion, compare, page, promote, recalled
from tests.conftest import ROOT
from tests.tasks.test_preprocess import add_batch, digit
from tests.tiny import NAME, Tiny


@pytest.fixture
def rivals(registered: Tiny) -> Tiny:
    """Version 1 is good, version 2 confuses all labels; there is no champion yet."""
    assert registered.register_confused().model_version == 2
    return registered


def test_a_first_model_that_has_learned_is_promoted(registered: Tiny) -> None:
    promotion = promote(registered.scenario, registered.workspace, registered.register())
    assert promotion.promoted and (promotion.champion, promotion.previous, promotion.changed) == (1, None, True)
    assert aliases(registered.workspace, NAME) == {"challenger": 1, "champion": 1}
    assert str(promotion).startswith('version 1 is the champion: the first one, better than always naming "')
    assert "## Against no champion" in card(registered, 1) and promotion.reason in card(registered, 1)


def test_a_first_model_that_has_learned_nothing_is_refused_and_there_is_no_champion(rivals: Tiny) -> None:
    promotion = promote(rivals.scenario, rivals.workspace, rivals.register_confused())
    assert not promotion.promoted and not promotion.changed and (promotion.champion, promotion.previous) == (None, None)
    assert str(promotion).startswith(
        'version 2 is not promoted, and there is no champion: it is not better than always naming "'
    )
    assert aliases(rivals.workspace, NAME) == {"challenger": 2}
    refusal = last_refusal(rivals.workspace, NAME, 2)
    assert refusal and refusal.reason == promotion.reason and refusal.champion is None
    with pytest.raises(WrongUse, match="no previous champion"):
        rollback(rivals.workspace, NAME)
    forced = rivals.promote(2, force=True)
    assert forced.promoted and forced.changed and (forced.champion, forced.previous) == (2, None)


@pytest.mark.parametrize(
    ("settings", "reported"),
    [({"floor": 1.0}, "where promote.floor is 100.0 %"), ({"alpha": 1e-300}, "is not better than always naming")],
)
def test_the_scenario_says_how_good_a_first_model_must_be(registered: Tiny, settings: dict[str, float], reported: str) -> None:
    stricter = registered.scenario.promote.model_copy(update=settings)
    promotion = promote(
        registered.scenario.model_copy(update={"promote": stricter}), registered.workspace, registered.register_confused()
    )
    assert not promotion.promoted and reported in promotion.reason


def test_a_first_model_that_never_saw_a_label_is_refused(registered: Tiny) -> None:
    path = registered.workspace.splits(NAME) / "train-labels.npy"
    labels = np.load(path)
    path.unlink()  # it may be a link into DVC's cache
    np.save(path, np.where(labels == 3, 4, labels))
    promotion = registered.promote()
    assert not promotion.promoted and promotion.reason == 'no item of the training split has the label "3"'


def test_a_worse_model_does_not_take_the_champions_place(rivals: Tiny) -> None:
    set_champion(rivals.workspace, NAME, 1)
    promotion = rivals.promote()
    assert not promotion.promoted and (promotion.model_version, promotion.champion, promotion.previous) == (2, 1, None)
    assert str(promotion).startswith("version 1 stays champion: not better than the champion by more than chance")
    assert aliases(rivals.workspace, NAME) == {"challenger": 2, "champion": 1}


def test_a_better_model_takes_the_champions_place(rivals: Tiny) -> None:
    set_champion(rivals.workspace, NAME, 2)
    generous = rivals.scenario.model_copy(
        update={"promote": rivals.scenario.promote.model_copy(update={"gain_per_doubling": 0.0})}
    )
    promotion = promote(generous, rivals.workspace, rivals.register())
    assert promotion.promoted and (promotion.champion, promotion.previous) == (1, 2)
    assert aliases(rivals.workspace, NAME) == {"challenger": 1, "champion": 1, "previous": 2}


def test_both_are_judged_on_the_same_items(rivals: Tiny) -> None:
    (there, energy), (back, _) = (compare(rivals.scenario, rivals.workspace, *pair) for pair in ((2, 1), (1, 2)))
    assert energy is not None and (energy.ratio, energy.how) == (1.0, "same")
    assert (there.gained, there.lost) == (back.lost, back.gained)
    right = (rivals.evaluation.metrics["accuracy"] or 0) * rivals.evaluation.items
    assert there.gained <= right and there.gained - there.lost <= right and there.gained > there.lost


def test_a_model_against_itself_changes_nothing(registered: Tiny) -> None:
    set_champion(registered.workspace, NAME, 1)
    promotion = registered.promote()
    assert promotion.promoted and promotion.reason == "it is already" and promotion.previous is None
    assert not promotion.changed and not registered.promote(force=True).changed
    verdict, _ = compare(registered.scenario, registered.workspace, 1, 1)
    assert not verdict.promote and (verdict.gained, verdict.lost) == (0, 0)


def test_force_promotes_whatever_the_gate_says_and_rollback_undoes_it(rivals: Tiny) -> None:
    set_champion(rivals.workspace, NAME, 1)
    promotion = rivals.promote(2, force=True)
    assert promotion.promoted and (promotion.champion, promotion.previous) == (2, 1)
    assert "it was asked for, whatever the gate says" in str(promotion)
    rollback(rivals.workspace, NAME)
    assert aliases(rivals.workspace, NAME) == {"challenger": 2, "champion": 1, "previous": 2}


@pytest.mark.parametrize("force", [False, True])
def test_a_version_that_is_not_there_is_a_wrong_use_that_lists_what_there_is(rivals: Tiny, force: bool) -> None:
    set_champion(rivals.workspace, NAME, 1)
    before = aliases(rivals.workspace, NAME)
    with pytest.raises(WrongUse, match="no version 7; expected one of 1, 2, or an alias: challenger, champion"):
        rivals.promote(7, force=force)
    assert aliases(rivals.workspace, NAME) == before


def test_a_champion_whose_files_are_gone_is_not_replaced_unasked(rivals: Tiny) -> None:
    set_champion(rivals.workspace, NAME, 1)
    before = aliases(rivals.workspace, NAME)
    (rivals.workspace.mlruns / "artifacts").rename(rivals.workspace.mlruns / "elsewhere")
    with pytest.raises(EvergreenError, match="the files of evergreen-quickstart version 1 can't be read"):
        rivals.promote(2)
    assert aliases(rivals.workspace, NAME) == before


CHILD = """
import sys
from pathlib import Path
from tests.tiny import Tiny
tiny = Tiny(Path(sys.argv[1]))
import mlflow  # so that both are ready at about the same time
print("ready", flush=True)
sys.stdin.readline()
tiny.promote(int(sys.argv[2]), force=True)
"""


def test_two_promotions_at_once_leave_one_champion_and_the_other_previous(rivals: Tiny) -> None:
    assert rivals.register_confused(by=2).model_version == 3
    set_champion(rivals.workspace, NAME, 1)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(rivals.root), str(number)],
            cwd=ROOT, env=os.environ | {"EVERGREEN_ROOT": str(rivals.root)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in (2, 3)
    ]  # fmt: skip
    for child in children:
        assert child.stdout and child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin
        child.stdin.write("\n")
        child.stdin.flush()
    assert [child.communicate() and child.returncode for child in children] == [0, 0]
    found = aliases(rivals.workspace, NAME)
    assert {found["champion"], found["previous"]} == {2, 3}


def test_a_decision_stands_until_there_is_another_version_or_other_settings(rivals: Tiny) -> None:
    registration = rivals.register()
    last = promote(rivals.scenario, rivals.workspace, registration)
    assert recalled(rivals.scenario, rivals.workspace, registration, last) == replace(last, changed=False)
    for other in (
        replace(registration, model_version=9),
        replace(registration, created_at_ms=1),  # another store's version 1, or one that was made anew
        replace(registration, fingerprint="of another model"),
    ):
        assert recalled(rivals.scenario, rivals.workspace, other, last) is None
    stricter = rivals.scenario.model_copy(update={"promote": rivals.scenario.promote.model_copy(update={"alpha": 0.001})})
    assert recalled(stricter, rivals.workspace, registration, last) is None


def test_what_is_recalled_says_which_version_is_the_champion_now(rivals: Tiny) -> None:
    scenario, workspace, registration = rivals.scenario, rivals.workspace, rivals.register()
    client, model = rivals.client(), f"evergreen-{NAME}"
    last = promote(scenario, workspace, registration)

    def now() -> Promotion:
        found: Promotion | None = recalled(scenario, workspace, registration, last)
        assert found is not None and found.champion == aliases(workspace, NAME).get("champion")
        assert found.promoted is (found.champion == 1) and not found.changed
        return found

    assert now().promoted and now().reason == last.reason
    rivals.promote(2, force=True)
    assert "version 1 was promoted" in now().reason and "version 2 has taken its place since" in now().reason
    rollback(workspace, NAME)
    assert now().promoted and str(now()).startswith("version 1 is the champion")
    client.delete_registered_model_alias(model, "champion")  # a person, on MLflow's page
    assert now().champion is None and "@champion has been removed since" in now().reason
    set_alias(workspace, NAME, "champion", 2)
    assert now().champion == 2 and str(now()).startswith("version 2 stays champion")


def test_a_refused_model_that_a_person_promoted_or_that_met_another_champion_is_said_to_be_so(rivals: Tiny) -> None:
    scenario, workspace, registration = rivals.scenario, rivals.workspace, rivals.register_confused()
    set_champion(workspace, NAME, 1)
    last = promote(scenario, workspace, registration)
    assert not last.promoted
    set_alias(workspace, NAME, "champion", 2)
    found = recalled(scenario, workspace, registration, last)
    assert found and found.promoted and found.champion == 2 and "promoted by other means" in found.reason
    assert rivals.register_confused(by=2).model_version == 3
    set_alias(workspace, NAME, "champion", 3)
    found = recalled(scenario, workspace, registration, last)
    assert found and not found.promoted and "version 3 has become the champion since" in found.reason
    rivals.client().delete_model_version(f"evergreen-{NAME}", "3")  # no champion is left: the gate is asked again
    assert recalled(scenario, workspace, registration, last) is None


def test_a_decision_that_an_earlier_version_has_remembered_is_read(rivals: Tiny) -> None:
    registration, new = rivals.register(), ("energy", "fingerprint", "created_at_ms", "changed")
    last = promote(rivals.scenario, rivals.workspace, registration)
    old = TypeAdapter(Promotion).validate_python({key: value for key, value in asdict(last).items() if key not in new})
    assert recalled(rivals.scenario, rivals.workspace, registration, old) == replace(last, changed=False, energy=None)


def test_a_store_that_does_not_answer_is_said_to_be_away(registered: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    registration = registered.register()
    last = promote(registered.scenario, registered.workspace, registration)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Unreachable, match="MLflow at http://127.0.0.1:9 does not answer"):
        recalled(registered.scenario, registered.workspace, registration, last)


def test_a_promotion_survives_json_and_is_shown(registered: Tiny) -> None:
    promotion = registered.promote()
    assert as_remembered(promotion) == promotion
    shown = page(registered.scenario, registered.workspace, promotion)
    assert shown.texts == {"": "**Promoted.**"} and not any(shown.tables.values())
    refused = replace(promotion, promoted=False, champion=None)
    assert as_remembered(refused) == refused
    assert page(registered.scenario, registered.workspace, refused).texts == {"": "**Not promoted.**"}


def test_the_slices_of_the_scenario_stand_in_the_verdict_and_on_the_page(rivals: Tiny) -> None:
    set_champion(rivals.workspace, NAME, 1)
    settings = rivals.scenario.promote.model_copy(update={"slices": ("format", "collected_at")})
    promotion = promote(rivals.scenario.model_copy(update={"promote": settings}), rivals.workspace, rivals.register_confused())
    for column in ("label", "format", "collected_at"):
        assert sum(row.items for row in promotion.slices if row.column == column) == rivals.evaluation.items
    (rows,) = page(rivals.scenario, rivals.workspace, promotion).tables.values()
    assert [row["items with"] for row in rows] == [f"{one.column} {one.value}" for one in promotion.slices]
    assert all(isinstance(row["champion"], str) and "%" in row["champion"] for row in rows if row["items"])
    assert as_remembered(promotion) == promotion


def as_remembered(promotion: Promotion) -> Promotion:
    """Written into a file and read again, as `Stage` does."""
    found: Promotion = TypeAdapter(Promotion).validate_python(json.loads(json.dumps(asdict(promotion))))
    return found


def card(tiny: Tiny, version: int) -> str:
    run_id = tiny.client().get_model_version(f"evergreen-{NAME}", str(version)).run_id
    text: str = connect(tiny.workspace).artifacts.load_text(f"runs:/{run_id}/model_card.md")
    return text


def test_every_comparison_with_a_champion_is_added_to_the_model_card(rivals: Tiny) -> None:
    set_champion(rivals.workspace, NAME, 1)
    promotion = rivals.promote(2)
    text = card(rivals, 2)
    assert text.startswith(f"# evergreen-{NAME}") and text.count("## Against version 1, the champion on 20") == 1
    assert promotion.reason in text
    (zero,) = [line for line in text.splitlines() if line.startswith("| label 0 |")]
    row = next(row for row in promotion.slices if row.value == "0")
    assert f"| {row.items} |" in zero and f"| {row.lost} |" in zero
    rivals.promote(2)
    later = card(rivals, 2)
    assert later.startswith(text) and later.count("## Against version 1, the champion on 20") == 2
    assert rivals.client().get_model_version(f"evergreen-{NAME}", "2").description == later


def test_named_groups_of_an_items_path_are_slices(rivals: Tiny) -> None:
    set_champion(rivals.workspace, NAME, 1)
    pattern = r"^(?P<odd>[13579])/(?P<first>[0-3])|^(?P<even>[02468])/"
    settings = rivals.scenario.promote.model_copy(update={"slice_pattern": pattern})
    requested = set(ids_of_test_items(rivals.workspace, NAME))
    rows = [row for row in table(batches(rivals.workspace, NAME), ["id", "source"]).to_pylist() if row["id"] in requested]
    promotion = promote(rivals.scenario.model_copy(update={"promote": settings}), rivals.workspace, rivals.register_confused())
    for column in ("odd", "first", "even"):
        matches = [re.search(pattern, row["source"]) for row in rows]
        expected = Counter(match[column] if match and match[column] else "none" for match in matches)
        assert len(expected) > 2
        assert {row.value: row.items for row in promotion.slices if row.column == column} == expected


def test_when_the_test_split_has_grown_both_are_scored_on_todays(rivals: Tiny) -> None:
    set_champion(rivals.workspace, NAME, 1)
    before, (earlier, _) = rivals.evaluation.items, compare(rivals.scenario, rivals.workspace, 1, 2)
    add_batch(rivals.workspace, ((*digit(number), None, None) for number in range(500, 700)))
    preprocess.stage.perform(rivals.scenario, rivals.workspace)
    today = len(open_split(rivals.workspace.splits(NAME), "test"))
    verdict, _ = compare(rivals.scenario, rivals.workspace, 1, 2)
    assert today > before
    assert sum(one.items for one in verdict.slices if one.column == "label") == today
    assert verdict.lost > earlier.lost  # new ones, too, that the champion alone gets right
