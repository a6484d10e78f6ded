"""validate: with real Great Expectations, on batches as collect stages them."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from evergreen.data.dataset import PartWriter, staged, table
from evergreen.errors import DataRefused
from evergreen.kinds.classify.items import Item, schema
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.media.images import Header, Inspection
from evergreen.names import tidy
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from tasks.collect import Collection, collect
from tasks.validate import Validation, page, unchanged, validate

ODD_LABELS = [
    'it\'s "so"',
    "back\\slash",
    "two\nlines",
    "größer",
    "`tick`",
    "@at",
    "$dollar",
    "{brace}",
    "<b>bold</b>",
    "a & b",
]


def scenario(**validation: Any) -> ImageScenario:
    return ImageScenario.model_validate(
        {
            "name": "pets",
            "kind": "classify",
            "seed": 1,
            "collect": {"path": "pets"},
            "validate": {"labels": ["cat", "dog"]} | validation,
            "preprocess": {"height": 8, "width": 8, "channels": 1},
            "train": {},
        }
    )


def batch(
    folder: Path, items: dict[str, int], *, salt: str = "", brightness: float = 0.5, sharpness: float = 100.0, side: int = 16
) -> Path:
    """A batch folder with so many items of each label; their images are a few bytes that nobody decodes."""
    folder.mkdir(parents=True)
    with PartWriter(folder, schema()) as writer:
        for label, number in items.items():
            for index in range(number):
                image = f"{salt}/{label}/{index}".encode()
                near = 1 + 0.02 * ((index % 5) - 2)  # the medians stay what is asked for
                looks = Inspection(Header("PNG", side, side, 1), brightness * near, 0.2, sharpness * near, index)
                one = Item(
                    hashlib.sha256(image).hexdigest(), image, label, None, None, f"{label}/{index}.png",
                    datetime(2026, 1, 2, tzinfo=UTC), looks,
                )  # fmt: skip
                writer.add_row(one.row())
    return folder


def staged_batch(workspace: Workspace, items: dict[str, int], **looks: Any) -> Path:
    return batch(workspace.staging("pets") / "00001-bbbbbbbbbbbb", items, salt="new", **looks)


def accepted_batch(workspace: Workspace, items: dict[str, int], **looks: Any) -> Path:
    return batch(workspace.data("pets") / "00000-aaaaaaaaaaaa", items, **looks)


def collection(seen: int = 100, duplicates: int = 0, conflicts: int = 0) -> Collection:
    quarantined = {"label-conflict": conflicts} if conflicts else {}
    return Collection(
        "pets", "pets", "f" * 64, seen, seen - duplicates - conflicts, 0, duplicates, conflicts, quarantined, 0,
        "00001-bbbbbbbbbbbb", 1, 0.1, ("00000-aaaaaaaaaaaa", "00001-bbbbbbbbbbbb"), {},
    )  # fmt: skip


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refusal(workspace: Workspace, settings: Scenario, collected: Collection | None = None) -> str:
    """The words of the refusal, after which everything but the Data Docs is as it was."""
    before = tree(workspace.root)
    with pytest.raises(DataRefused) as refused:
        validate(settings, workspace, collected or collection())
    after = tree(workspace.root)
    docs = after.pop("outputs/pets/data-docs/index.html").decode()
    before.pop("outputs/pets/data-docs/index.html", None)
    assert after == before
    assert "refused" in docs
    return str(refused.value)


def test_digits_as_collected_meet_the_expectations_of_the_quickstart(workspace: Workspace) -> None:
    quickstart = load_scenario(workspace.scenarios, "quickstart")
    validation = validate(quickstart, workspace, collect(quickstart, workspace))
    assert (validation.items, validation.new_items) == (1797, 1797)
    assert validation.labels["3"] == 183
    assert all(check.passed for check in validation.checks)
    assert str(validation) == "1,797 items, 1,797 of them new, meet all 27 expectations."
    docs = (workspace.data_docs("quickstart") / "index.html").read_text()
    assert "accepted" in docs and "label &quot;3&quot;: at least 100" in docs


@pytest.mark.parametrize(
    ("settings", "items", "looks", "words"),
    [
        ({"min_items_per_label": 20}, {"cat": 30, "dog": 19}, {}, 'label "dog": 19 items, expected at least 20'),
        ({}, {"cat": 30}, {}, 'label "dog": 0 items, expected at least 10'),
        ({}, {"cat": 30, "dog": 30, "cow": 2}, {}, "label: 2 of 62 items have another ('cow'), expected one of cat, dog"),
        ({"min_side": 17}, {"cat": 30, "dog": 30}, {}, "width: 60 of 60 items are outside (16), expected 17 to 20,000 pixels"),
        ({"max_side": 64}, {"cat": 30, "dog": 30}, {"side": 65}, "height: 60 of 60 items are outside (65), expected 1 to 64"),
        ({}, {"cat": 30, "dog": 30}, {"brightness": 1.5}, "brightness: 60 of 60 items are outside"),
    ],
)
def test_items_that_are_not_as_expected_are_refused_in_words(
    workspace: Workspace, settings: dict[str, Any], items: dict[str, int], looks: dict[str, Any], words: str
) -> None:
    staged_batch(workspace, items, **looks)
    assert words in refusal(workspace, scenario(**settings))


def test_all_that_failed_is_named_at_once(workspace: Workspace) -> None:
    staged_batch(workspace, {"cat": 3, "dog": 4})
    words = refusal(workspace, scenario(max_side=8))
    assert words.startswith('4 of 19 expectations failed: label "cat": 3 items, expected at least 10; label "dog": 4 items')
    assert "\n" not in words and "scenarios/pets.yaml" in words and "data-docs/index.html" in words


def test_too_many_exact_copies_in_the_source_are_refused(workspace: Workspace) -> None:
    staged_batch(workspace, {"cat": 20, "dog": 20})
    words = refusal(workspace, scenario(max_duplicate_share=0.3), collection(seen=100, duplicates=31))
    assert "exact copies in the source: 31 %, expected at most 30 %" in words


def test_too_many_items_under_two_labels_are_refused(workspace: Workspace) -> None:
    staged_batch(workspace, {"cat": 20, "dog": 20})
    words = refusal(workspace, scenario(), collection(seen=100, conflicts=2))
    assert "items under two labels: 2 %, expected at most 1 %" in words


def test_shares_exactly_at_their_limits_are_accepted(workspace: Workspace) -> None:
    staged_batch(workspace, {"cat": 20, "dog": 20})
    settings = scenario(max_duplicate_share=0.1, max_conflict_share=0.07)
    assert validate(settings, workspace, collection(seen=100, duplicates=10, conflicts=7)).items == 40


def test_an_id_that_stands_in_the_data_set_already_is_refused(workspace: Workspace) -> None:
    accepted_batch(workspace, {"cat": 20, "dog": 20}, salt="new")
    staged_batch(workspace, {"cat": 1})
    assert "id: 2 of 41 items share theirs" in refusal(workspace, scenario())


def test_a_part_without_a_column_is_refused(workspace: Workspace) -> None:
    folder = staged_batch(workspace, {"cat": 20, "dog": 20})
    part = folder / "part-00000.parquet"
    pq.write_table(pq.read_table(part).drop_columns(["sharpness"]), part)
    words = refusal(workspace, scenario())
    assert "columns: sharpness missing" in words and "type of sharpness: cannot be known, expected float32" in words


def test_a_part_with_a_column_of_another_type_is_refused(workspace: Workspace) -> None:
    folder = staged_batch(workspace, {"cat": 20, "dog": 20})
    part = folder / "part-00000.parquet"
    table = pq.read_table(part)
    column = table.schema.get_field_index("width")
    pq.write_table(table.set_column(column, "width", table["width"].cast(pa.int64())), part)
    assert "type of width: int64, expected int32" in refusal(workspace, scenario())


def test_parts_that_make_no_table_are_refused_before_anything_is_written(workspace: Workspace) -> None:
    accepted_batch(workspace, {"cat": 20, "dog": 20})
    folder = staged_batch(workspace, {"cat": 20})
    (folder / "part-00000.parquet").write_bytes(b"PAR1 and no more")
    before = tree(workspace.root)
    with pytest.raises(DataRefused, match="cannot be read as one table"):
        validate(scenario(), workspace, collection())
    assert tree(workspace.root) == before


def test_no_item_at_all_is_refused(workspace: Workspace) -> None:
    with pytest.raises(DataRefused, match="no item"):
        validate(scenario(), workspace, collection(seen=0))


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        ({"brightness": 0.1}, "median brightness of the new items: 0.1, expected 0.3 to 0.7 (it is 0.5 in the last accepted version)"),
        ({"brightness": 0.9}, "median brightness of the new items: 0.9, expected 0.3 to 0.7"),
        ({"sharpness": 20.0}, "median sharpness of the new items: 20, expected 25 to 400"),
        ({"sharpness": 500.0}, "median sharpness of the new items: 500, expected 25 to 400"),
    ],
)  # fmt: skip
def test_new_items_that_look_otherwise_than_the_accepted_ones_are_refused(
    workspace: Workspace, looks: dict[str, float], words: str
) -> None:
    accepted_batch(workspace, {"cat": 200, "dog": 200})
    staged_batch(workspace, {"cat": 5, "dog": 5}, **looks)  # too few to move the median of all
    assert words in refusal(workspace, scenario())


def test_the_first_version_and_a_handful_of_items_are_compared_with_nothing(workspace: Workspace) -> None:
    staged_batch(workspace, {"cat": 20, "dog": 20}, brightness=0.01, sharpness=0.0)
    assert len(validate(scenario(), workspace, collection()).checks) == 19
    accepted_batch(workspace, {"cat": 20, "dog": 20})
    staged = workspace.staging("pets") / "00001-bbbbbbbbbbbb"
    (staged / "part-00000.parquet").unlink()
    staged.rmdir()
    staged_batch(workspace, {"cat": 9}, brightness=0.01)
    assert len(validate(scenario(), workspace, collection()).checks) == 19


def test_new_items_like_the_accepted_ones_are_accepted(workspace: Workspace) -> None:
    accepted_batch(workspace, {"cat": 20, "dog": 20})
    staged_batch(workspace, {"cat": 5, "dog": 5}, brightness=0.65, sharpness=300.0)
    validation = validate(scenario(), workspace, collection())
    assert (validation.items, validation.new_items, len(validation.checks)) == (50, 10, 21)
    assert validation.batches == ("00000-aaaaaaaaaaaa", "00001-bbbbbbbbbbbb")


def test_labels_may_be_any_names_that_folders_have(workspace: Workspace) -> None:
    labels = [tidy(label) for label in ODD_LABELS]  # as a scenario reads them
    staged_batch(workspace, dict.fromkeys(ODD_LABELS, 11) | {'<img src="https://example.org/a.png">': 1})
    words = refusal(workspace, scenario(labels=labels))
    assert words.startswith("1 of 27 expectations failed: label: 1 of 111 items have another")
    docs = (workspace.data_docs("pets") / "index.html").read_text()
    assert "<img" not in docs and "&lt;b&gt;bold&lt;/b&gt;" in docs and "&lt;img src=" in docs and "$dollar" in docs


def test_data_docs_name_the_items_that_are_not_as_expected(workspace: Workspace) -> None:
    staged_batch(workspace, {"cat": 30, "dog": 30, "cow": 1})
    refusal(workspace, scenario())
    rows = table(staged(workspace, "pets"), ["id", "source", "label"]).to_pylist()
    [cow] = [row for row in rows if row["label"] == "cow"]
    docs = html.unescape((workspace.data_docs("pets") / "index.html").read_text())
    assert f"'cow' is {cow['source']}, id {cow['id']}" in docs


def test_a_validation_survives_the_way_through_json(workspace: Workspace) -> None:
    staged_batch(workspace, {"cat": 20, "dog": 20})
    validation = validate(scenario(), workspace, collection())
    text = json.dumps(dataclasses.asdict(validation))
    assert TypeAdapter(Validation).validate_python(json.loads(text)) == validation


def accepted_validation(workspace: Workspace) -> Validation:
    """Validated and then moved into the data set, as version does."""
    folder = staged_batch(workspace, {"cat": 20, "dog": 20})
    validation = validate(scenario(), workspace, collection())
    workspace.data("pets").mkdir(parents=True)
    folder.rename(workspace.data("pets") / folder.name)
    return validation


def test_what_was_accepted_is_unchanged_until_something_changes(workspace: Workspace) -> None:
    validation = accepted_validation(workspace)
    assert unchanged(scenario(), workspace, collection(), validation)
    assert not unchanged(scenario(max_side=64), workspace, collection(), validation)
    assert not unchanged(scenario(), workspace, collection(duplicates=1), validation)
    docs = workspace.data_docs("pets") / "index.html"
    aside = docs.rename(docs.with_name("aside.html"))
    assert not unchanged(scenario(), workspace, collection(), validation)
    aside.rename(docs)
    batch(workspace.staging("pets") / "00002-cccccccccccc", {"cat": 1}, salt="more")
    assert not unchanged(scenario(), workspace, collection(), validation)
    (workspace.staging("pets") / "00002-cccccccccccc").rename(workspace.data("pets") / "00002-cccccccccccc")
    assert not unchanged(scenario(), workspace, collection(), validation)


def test_finding_it_unchanged_imports_neither_great_expectations_nor_pandas(workspace: Workspace) -> None:
    validation = accepted_validation(workspace)
    question: dict[str, Any] = {"validation": dataclasses.asdict(validation), "collection": dataclasses.asdict(collection())}
    code = """if True:
        import json, sys
        from pathlib import Path
        from pydantic import TypeAdapter
        from evergreen.kinds.classify.settings import ImageScenario
        from evergreen.workspace import Workspace
        from tasks.collect import Collection
        from tasks.validate import Validation, unchanged
        given = json.load(sys.stdin)
        scenario = ImageScenario.model_validate(given["scenario"])
        collection, last = Collection(**given["collection"]), TypeAdapter(Validation).validate_python(given["validation"])
        answer = unchanged(scenario, Workspace(Path(given["root"])), collection, last)
        print(json.dumps([answer, sorted({"great_expectations", "pandas"} & set(sys.modules))]))
    """
    question |= {"scenario": scenario().model_dump(mode="json", by_alias=True), "root": str(workspace.root)}
    answer = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(question), capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout) == [True, []]


def test_the_page_links_the_data_docs_and_lists_every_expectation(workspace: Workspace) -> None:
    staged_batch(workspace, {"cat": 20, "dog": 20})
    validation = validate(scenario(), workspace, collection())
    shown = page(scenario(), workspace, validation)
    assert shown.links["Data Docs"] == workspace.data_docs(scenario().name) / "index.html"
    rows = shown.tables["Expectations, all met"]
    assert len(rows) == len(validation.checks)
    assert {"about": 'label "cat"', "expected": "at least 10", "observed": "20 items"} in rows
    assert all(len(cell) < 50 for row in rows for cell in row.values())  # else a row of three is cut off on Prefect's page


def test_a_table_holds_no_images(workspace: Workspace) -> None:
    from tasks.validate import _table

    staged_batch(workspace, {"cat": 20, "dog": 20})
    table = _table(scenario(), workspace, collection())
    assert set(table) == set(schema().names) - {"image"} | {"new", "duplicate_share", "conflict_share"}
    assert table["new"].dtype == np.int8


def test_a_refusal_for_labels_that_the_source_has_changed_names_the_ways_out(workspace: Workspace) -> None:
    staged_batch(workspace, {"cat": 20, "dog": 20})
    found = dataclasses.replace(collection(seen=100), relabelled=2, conflicts=2)
    words = refusal(workspace, scenario(), found)
    assert "2 items have another label in the source than in the data set: collect.mirror: true takes the source's" in words
    assert "corrections in inbox/pets/" in words
