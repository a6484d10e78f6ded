"""validate: check that the data set, including the newly collected items, is fit to train on.

Reads   `data/NAME`, the staged batch (all columns except the encoded items), the figures of the collection.
Writes  `outputs/NAME/data-docs/index.html`, whether the data are accepted or refused.
Stops   when an expectation of the scenario fails; the data set stays as it was.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen import figures, progress
from evergreen.data.dataset import batches, iter_parts, parts, records, staged
from evergreen.errors import DataRefused
from evergreen.kinds.base.kind import kind_of
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace, replace_file
from tasks.collect import Collection
from tasks.page import Page, Rows
from tasks.stage import Stage

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult

RESULT_FORMAT = {"result_format": "SUMMARY", "unexpected_index_column_names": ["id", "source"]}  # to name the examples' items
FEW = 10  # new items: the median of fewer says nothing about drift


@dataclass(frozen=True)
class Check:
    """One expectation and what was observed, in words; `examples` are some items that do not meet it, with id and path."""

    about: str
    expected: str
    observed: str
    passed: bool
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.about}: {self.observed}, expected {self.expected}"


@dataclass(frozen=True)
class Validation:
    """The result of a validation.

    Attributes:
        name: the scenario's name.
        items: number of items in the data set, including the new ones.
        new_items: how many of them are new.
        batches: names of the checked batch folders, in order: those of the data set, then the staged one.
        labels: number of items by label, if labels are names.
        checks: every expectation.
        figures: of the collection: seen, duplicates, conflicts.
        settings: the scenario's section `validate`.
    """

    name: str
    items: int
    new_items: int
    batches: tuple[str, ...]
    labels: dict[str, int]
    checks: tuple[Check, ...]
    figures: dict[str, int]
    settings: dict[str, Any]

    def __str__(self) -> str:
        new = f", {self.new_items:,} of them new," if self.new_items else ""
        return f"{self.items:,} items{new} meet all {len(self.checks)} expectations."


def validate(scenario: Scenario, workspace: Workspace, collection: Collection) -> Validation:
    """Check the data set and the staged batch against the scenario's expectations, and write Data Docs about it.

    Raises:
        DataRefused: an expectation failed; the error lists all that failed, with what was observed and expected.
    """
    name, settings = scenario.name, scenario.validation
    table = _table(scenario, workspace, collection)
    new_items, contract, accepted = int(table["new"].sum()), kind_of(scenario).contract, {}
    if FEW <= new_items < len(table) and set(contract.properties) <= set(table):
        medians = table.loc[table["new"] == 0, list(contract.properties)].median()
        accepted = {str(name): float(value) for name, value in medians.items()}
    with progress.task("Starting Great Expectations"):
        expectations = contract.expectations(scenario, accepted)
    result = _judge(table, name, expectations)
    validation = Validation(
        name,
        items=len(table),
        new_items=new_items,
        batches=tuple(folder.name for folder in [*batches(workspace, name), *staged(workspace, name)]),
        labels=contract.by_label(scenario, table["label"]) if "label" in table and contract.known_labels(scenario) else {},
        checks=tuple(_in_words(one) for one in result.results),
        figures=_figures(collection),
        settings=settings.model_dump(mode="json"),
    )
    failures = [str(check) for check in validation.checks if not check.passed]
    otherwise = (
        f"{collection.relabelled:,} items have another label in the source than in the data set: collect.mirror: true takes the source's, a "
        f"CSV of corrections in inbox/{name}/ yours. "
        if collection.relabelled and not collection.settings.get("mirror")
        else ""
    )
    _write_docs(workspace, validation, result, failures)
    if failures:
        raise DataRefused(
            f"{len(failures)} of {len(validation.checks)} expectations failed: {'; '.join(failures)}",
            fix=f"{otherwise}See {_docs(workspace, name)}; then correct the source, or validate in scenarios/{name}.yaml.",
        )
    return validation


def _table(scenario: Scenario, workspace: Workspace, collection: Collection) -> pd.DataFrame:
    """One row per item: the data set's columns without the encoded items, plus those that the contract derives from them, `new`
    (1 if staged, else 0), and `duplicate_share` and `conflict_share` (fractions of the collection, the same in all rows)."""
    import numpy as np
    import pyarrow as pa

    try:
        in_place, waiting = batches(workspace, scenario.name), staged(workspace, scenario.name)
        columns = _columns([*in_place, *waiting])
        everything = records([*in_place, *waiting])  # staged records concern items that are already in the data set
        old = [pa.Table.from_batches([rows]) for rows in iter_parts(in_place, columns, everything)]
        new = [pa.Table.from_batches([rows]) for rows in iter_parts(waiting, columns, everything)]
        if not old and not new:
            raise DataRefused(f"there is no item in the data set {scenario.name}", fix="Collect some first.")
        old_items = sum(len(rows) for rows in old)
        items = pa.concat_tables([*old, *new], promote_options="permissive")
    except pa.ArrowException as error:
        raise DataRefused(
            f"the parts of the data set {scenario.name} cannot be read as one table ({error})",
            fix=f"Bring it back with: dvc checkout --force data/{scenario.name}",
        ) from None
    del old, new
    table: pd.DataFrame = items.to_pandas(split_blocks=True, self_destruct=True)
    table["new"] = (np.arange(len(table)) >= old_items).astype(np.int8)
    table = table.assign(**kind_of(scenario).contract.derived_columns(scenario, table))
    seen = max(collection.seen, 1)
    table["duplicate_share"] = collection.duplicates / seen
    table["conflict_share"] = collection.conflicts / seen
    return table


def _columns(folders: Sequence[Path]) -> list[str]:
    """The column names of the first part, without the encoded items."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = next(iter(parts(folders)), None)
    return [] if first is None else [field.name for field in pq.read_schema(first) if not pa.types.is_binary(field.type)]


def _judge(table: pd.DataFrame, name: str, expectations: list[Any]) -> ExpectationSuiteValidationResult:
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    import great_expectations as gx
    from great_expectations.execution_engine import pandas_execution_engine

    # Hashing the table would take half of the time and memory, and nothing reads the hash.
    pandas_execution_engine.HASH_THRESHOLD = 0
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    asset = context.data_sources.add_pandas("items").add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})
    result = batch.validate(gx.ExpectationSuite(name, expectations=expectations), result_format=RESULT_FORMAT)
    order = {expectation.description: number for number, expectation in enumerate(expectations)}
    result.results.sort(key=lambda one: order[one.expectation_config.description] if one.expectation_config else 0)
    return result


def _in_words(one: ExpectationValidationResult) -> Check:
    assert one.expectation_config is not None
    meta, found = one.expectation_config.meta or {}, one.result
    return Check(meta["about"], meta["expected"], _observed(found, meta["unit"]), bool(one.success), _examples(found))


def _observed(found: dict[str, Any], unit: str) -> str:
    value = found.get("observed_value")
    if "unexpected_count" in found:
        if not found["unexpected_count"]:
            return f"all {found['element_count']:,} items"
        examples = ", ".join(dict.fromkeys(repr(value)[:80] for value in found.get("partial_unexpected_list", [])[:5]))
        return f"{found['unexpected_count']:,} of {found['element_count']:,} items {unit} ({examples})".replace(" ()", "")
    if isinstance(value, list):
        missing = found.get("details", {}).get("mismatched", {}).get("missing", [])
        return f"{', '.join(missing)} missing" if missing else "all there"
    if isinstance(value, str):
        return value
    if value is None:
        return "cannot be known"
    return {"items": f"{value:,} items", "share": f"{figures.short(100 * value, 4)} %"}.get(unit, figures.short(value, 4))


def _examples(found: dict[str, Any]) -> tuple[str, ...]:
    """Some of the items that do not meet the expectation: the value, the item's id and its path in the source."""
    items = [item for item in found.get("partial_unexpected_index_list") or () if "id" in item and "source" in item]
    values = found.get("partial_unexpected_list", [])
    return tuple(
        f"{value!r:.80} is {item['source']!s:.200}, id {item['id']}" for value, item in zip(values[:5], items[:5], strict=False)
    )


def _write_docs(
    workspace: Workspace, validation: Validation, result: ExpectationSuiteValidationResult, failures: list[str]
) -> None:
    from evergreen.reporting.data_docs import render

    sentence = (
        f"{len(failures)} of {len(validation.checks)} expectations failed; the data set stays as it was."
        if failures
        else str(validation)
    )
    facts = {
        "items": f"{validation.items:,}",
        "new": f"{validation.new_items:,}",
        **({"labels": f"{len(validation.labels):,}"} if validation.labels else {}),
        "batches": f"{len(validation.batches):,}",
        "expectations met": f"{len(validation.checks) - len(failures)} of {len(validation.checks)}",
    }
    failures = [sentence for check in validation.checks if not check.passed for sentence in (str(check), *check.examples)]
    page = render(result, title=f"Data of {validation.name}", sentence=sentence, failures=failures, facts=facts)
    replace_file(_docs(workspace, validation.name), page.encode())


def _docs(workspace: Workspace, name: str) -> Path:
    return workspace.data_docs(name) / "index.html"


def _figures(collection: Collection) -> dict[str, int]:
    return {"seen": collection.seen, "duplicates": collection.duplicates, "conflicts": collection.conflicts}


def unchanged(scenario: Scenario, workspace: Workspace, collection: Collection, last: Validation) -> bool:
    """True if the data, the expectations and the collection's figures are those of the last validation, and no batch is
    staged."""
    return (
        not staged(workspace, scenario.name)
        and tuple(folder.name for folder in batches(workspace, scenario.name)) == tuple(last.batches)
        and scenario.validation.model_dump(mode="json") == last.settings
        and _figures(collection) == last.figures
        and _docs(workspace, scenario.name).is_file()
    )


def page(scenario: Scenario, workspace: Workspace, validation: Validation) -> Page:
    """The expectations, and a link to Data Docs."""
    labels: Rows = [{"label": label, "items": items} for label, items in validation.labels.items()]
    met = [
        {"about": one.about, "expected": _short(one.expected), "observed": _short(one.observed)} for one in validation.checks
    ]
    return Page(tables={"Expectations, all met": met, "Labels": labels}, links={"Data Docs": _docs(workspace, validation.name)})


def _short(text: str) -> str:
    """Shorten a text so that a row of three fits Prefect's page; Data Docs have the full text."""
    return text if len(text) <= 48 else f"{text[:47]}…"


def work(scenario: Scenario, validation: Validation) -> tuple[float, str]:
    """The amount of work and its kind. See `tasks.stage.Stage`."""
    return float(validation.items), "items"


stage = Stage(validate, Validation, unchanged=unchanged, page=page, work=work)
