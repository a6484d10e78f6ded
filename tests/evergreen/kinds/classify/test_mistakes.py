"""What a version gets wrong, from the predictions that are on record and the data set as it is now."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from evergreen.data.dataset import batches
from evergreen.kinds.classify.mistakes import COMMONEST, PICTURES, read_mistakes
from evergreen.workspace import Workspace
from tests.tasks.test_preprocess import add_batch, digit


def predictions(path: Path, rows: list[tuple[str, str, str, float]]) -> Path:
    columns = dict(zip(("id", "label", "predicted", "probability"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), path)
    return path


def test_the_commonest_mistakes_come_first_with_the_surest_items(workspace: Workspace, tmp_path: Path) -> None:
    digits = [digit(number) for number in range(7)]
    add_batch(workspace, [(*one, None, None) for one in digits])
    ids = [hashlib.sha256(image).hexdigest() for image, _ in digits]
    rows = [
        (ids[0], "a", "b", 0.6), (ids[1], "a", "b", 0.9), (ids[2], "a", "a", 0.9),
        (ids[3], "b", "b", 1.0), (ids[4], "b", "c", 0.5), (64 * "0", "a", "b", 0.7),
    ]  # fmt: skip
    found = read_mistakes(
        predictions(tmp_path / "p.parquet", rows), batches(workspace, "quickstart"), lambda image: f"{len(image)}"
    )
    assert found is not None
    assert found.labels == ("a", "b", "c") and found.matrix == ((1, 3, 0), (0, 1, 1), (0, 0, 0))
    assert (found.items, found.wrong) == (6, 4)
    first, second = found.commonest
    assert (first.actual, first.predicted, first.items, first.of_items) == ("a", "b", 3, 4)
    assert [example.id for example in first.examples] == [ids[1], 64 * "0", ids[0]]  # the surest first
    assert first.examples[0].address == str(len(digits[1][0])) and first.examples[0].source
    assert (first.examples[1].address, first.examples[1].source) == (None, "")  # the data set no longer has it
    assert (second.actual, second.predicted) == ("b", "c")
    assert [(one.label, one.items, one.recall) for one in found.quality] == [("a", 4, 0.25), ("b", 2, 0.5), ("c", 0, None)]


def test_what_the_model_did_not_know_is_no_mistake_but_counts_as_not_recognised(workspace: Workspace, tmp_path: Path) -> None:
    file = predictions(
        tmp_path / "p.parquet", [("0", "a", "b", 0.6), ("1", "a", "a", 0.9), ("2", "b", "b", 0.4), ("3", "a", "b", 0.7)]
    )
    table = pq.read_table(file).append_column("unknown", [["unsure", "", "unlike", ""]])
    pq.write_table(table, file)
    found = read_mistakes(file, batches(workspace, "quickstart"), lambda image: None)
    assert found is not None and found.matrix == ((1, 1), (0, 0)) and found.unknown == {"unlike": 1, "unsure": 1}
    assert (found.items, found.answered, found.wrong) == (4, 2, 1) and [one.items for one in found.commonest] == [1]
    assert [(one.items, one.recall) for one in found.quality] == [(3, 1 / 3), (1, 0)]


def test_a_page_is_not_filled_with_every_mistake(workspace: Workspace, tmp_path: Path) -> None:
    rows = [(f"{n:064x}", f"label {n % 9}", "other", 0.5) for n in range(90)]
    found = read_mistakes(predictions(tmp_path / "p.parquet", rows), batches(workspace, "quickstart"), lambda image: None)
    assert found is not None and len(found.commonest) == COMMONEST
    assert all(len(mistake.examples) == PICTURES for mistake in found.commonest)


def test_without_readable_predictions_nothing_is_claimed(tmp_path: Path) -> None:
    assert read_mistakes(None, [], lambda image: None) is None
    (tmp_path / "p.parquet").write_bytes(b"damaged")
    assert read_mistakes(tmp_path / "p.parquet", [], lambda image: None) is None
