"""The records as they are: real MLflow, real parts, a real quarantine."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

from evergreen.data.dataset import Correction, Quarantine, Withdrawal, batches, stage_records, table
from evergreen.registry.models import rollback
from evergreen.reporting.history import read_history
from flows.report import to_dict, write_report
from tests.tasks.test_preprocess import add_batch, digit
from tests.tiny import NAME, Tiny

HOSTILE = "<script>hacked = 1</script>"

KEYS = {
    "answer", "champion", "currency", "data", "events", "front", "mistakes", "previous", "quarantined", "scenario", "spent", "unfinished",
    "versions",
}  # fmt: skip
VERSION_KEYS = {
    "accuracy", "accuracy_high", "accuracy_low", "batches", "carbon_gco2e", "data_version", "energy_methods", "energy_uncertainty_wh",
    "energy_uncertainty_wh_per_1000", "energy_wh", "energy_wh_per_1000", "f1_macro", "f1_macro_high", "f1_macro_low", "gap", "made_at",
    "money", "promoted", "reason", "saved_by_waiting_gco2e", "saved_by_warm_start_wh", "seconds", "test_items", "version",
}  # fmt: skip


def test_the_history_tells_versions_changes_of_champion_data_and_quarantine(registered: Tiny) -> None:
    workspace = registered.workspace
    registered.promote()
    registered.register_confused()
    registered.promote(force=True)
    rollback(workspace, NAME)
    client = registered.client()
    run_id = client.get_model_version("evergreen-quickstart", "1").run_id
    client.log_metric(run_id, "carbon_gco2e_saved_by_waiting", 1.5)
    client.set_tag(run_id, "energy_wh_saved_by_warm_start", "0.5")
    first = table(batches(workspace, NAME), ["id"])["id"][0].as_py()
    add_batch(workspace, [(*digit(number), None, None) for number in range(500, 520)])
    second, at = table(batches(workspace, NAME), ["id"])["id"][1].as_py(), "2026-01-01T00:00:00+00:00"
    stage_records(
        workspace.data(NAME),
        2,
        [Correction(first, HOSTILE, "0", None, at, "fix.csv")],
        [Withdrawal(second, True, "source", at, "")],
    )
    image, label = digit(3)
    id = hashlib.sha256(image).hexdigest()
    with Quarantine(workspace, NAME) as quarantine:
        when = datetime(2026, 1, 1, tzinfo=UTC)
        quarantine.add(
            f"{HOSTILE}.png", "label-conflict", "two", id=id, data=image, label=label, size_bytes=1, collected_at=when
        )
        quarantine.add("b.png", "truncated", "half", id="f" * 64, data=b"\x89PNG", label=None, size_bytes=4, collected_at=when)
        quarantine.add("c.png", "truncated", "half", id="../../x", data=None, label=None, size_bytes=4, collected_at=when)

    history = read_history(registered.scenario, workspace)

    one, two = history.versions
    assert (history.champion, history.previous) == (1, 2)
    assert [(event.how, event.version, event.instead_of) for event in history.events] == [
        ("promoted", 1, None), ("promoted", 2, 1), ("rolled back to", 1, 2),
    ]  # fmt: skip
    assert all(event.at is not None for event in history.events)
    assert one.quality["accuracy"][0] == registered.evaluation.metrics["accuracy"]
    macro_f1, low, high = one.quality["f1_macro"]
    assert macro_f1 is not None and low is not None and high is not None and low <= macro_f1 <= high
    assert one.energy_wh and one.energy_uncertainty_wh and one.energy_methods and one.carbon_gco2e
    assert one.energy_wh_per_1000 and one.energy_uncertainty_wh_per_1000
    assert f"of {one.test_items} in the test split" in history.review.html
    mistakes = history.review.figures["mistakes"]
    assert sum(map(sum, mistakes["matrix"])) == one.test_items and set(mistakes) == {
        "labels", "matrix", "quality", "commonest", "unknown",
    }  # fmt: skip
    assert one.money is None and (one.saved_by_waiting_gco2e, one.saved_by_warm_start_wh) == (1.5, 0.5)
    trained, since = history.data
    assert trained.model_versions == (1, 2) and trained.added == trained.items and sum(trained.items.values()) == 500
    assert since.data_version is None and (since.relabelled, since.withdrawn) == (1, 1)
    assert since.added is not None and sum(since.added.values()) == 20 and since.items is not None and since.items[HOSTILE] == 1
    assert all(shown.address and shown.address.startswith("data:image/png") for shown in since.thumbnails)
    assert len({shown.label for shown in since.thumbnails}) == 8
    assert history.quarantined.by_reason == {"truncated": 2, "label-conflict": 1}
    pictures = {shown.source: shown.address is not None for shown in history.quarantined.thumbnails}
    assert pictures == {f"{HOSTILE}.png": True, "b.png": False, "c.png": False}

    path, histories = write_report(workspace, [NAME])
    assert path == workspace.outputs(NAME) / "report.html"
    text = path.read_text()
    assert "<script" not in text and text.count("&lt;script&gt;hacked") == 2 and 10_000 < len(text) < 200_000
    # What programs read; a key that is gone breaks them.
    shown = json.loads(json.dumps(to_dict(path, histories), default=str))["scenarios"][NAME]
    assert set(shown) >= KEYS and set(shown["versions"][0]) >= VERSION_KEYS


def test_records_that_are_missing_are_unknown(registered: Tiny) -> None:
    workspace = registered.workspace
    run_id = registered.client().get_model_version("evergreen-quickstart", "1").run_id
    for file in sorted((workspace.mlruns / "artifacts").rglob("*")):
        if file.is_file() and run_id in file.parts:
            file.unlink()
    history = read_history(registered.scenario, workspace)
    assert history.versions[0].quality["f1_macro"][1] is None and history.versions[0].energy_uncertainty_wh is None
    assert history.champion is None and history.events == ()
    assert [state.model_versions for state in history.data] == [()]


def test_of_a_batch_that_is_gone_counts_are_unknown(registered: Tiny) -> None:
    for folder in batches(registered.workspace, NAME):
        folder.rename(folder.with_name(f"gone-{folder.name}"))
    (state,) = read_history(registered.scenario, registered.workspace).data
    assert state.items is None and state.added is None and state.thumbnails == ()


def test_champions_of_before_the_notes_are_derived_from_aliases(registered: Tiny) -> None:
    client = registered.client()
    first = client.get_model_version("evergreen-quickstart", "1")
    client.create_model_version("evergreen-quickstart", first.source, first.run_id)
    client.set_registered_model_alias("evergreen-quickstart", "champion", "1")
    client.set_registered_model_alias("evergreen-quickstart", "previous", "2")
    (event,) = read_history(registered.scenario, registered.workspace).events
    assert (event.at, event.how, event.version, event.instead_of) == (None, "rolled back to", 1, 2)
