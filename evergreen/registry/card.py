"""The model card: what a registered model is, how good, on what data, at what cost (after Mitchell et al. 2019, arXiv 1810.03993)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from evergreen import figures
from evergreen.kinds.base.kind import kind_of
from evergreen.names import markdown
from evergreen.registry.models import connect, model_name
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

log = logging.getLogger("evergreen")

CARD = "model_card.md"  # of a model version's run in MLflow
AGAINST = "## Against"


def model_card(
    scenario: Scenario,
    *,
    metrics: dict[str, float | None],
    breakdown: Sequence[dict[str, Any]],
    splits: dict[str, Any],
    data_version: str,
    git_commit: str | None,
    training: dict[str, Any],
    costs: Sequence[tuple[str, str, str, str, str]],
    gap: str | None = None,
) -> str:
    """The card as Markdown.

    Args:
        metrics: as `tasks.evaluate.Evaluation`.
        breakdown: quality of parts of the items, as there.
        splits: the summary that `preprocess` wrote.
        training: `settings.json` of the model.
        costs: stage (or 1,000 predictions), time, energy, carbon, and carbon with the machine's making (SCI), as text.
        gap: that it did otherwise on val than on test, in words; None where that may be chance.
    """
    kind = kind_of(scenario)
    title, rows = kind.judge.breakdown_table(breakdown)
    lines = [
        f"# evergreen-{scenario.name}",
        "",
        markdown(scenario.description) or kind.contract.description,
        "",
        f"- {kind.judge.use(training)}",
        f"- Data version `{data_version}`, git commit `{git_commit or 'none'}`, seed {training['seed']}, best epoch "
        f"{training['best_epoch']}, {training['precision']}, trained from {trained_from(training)}.",
        f"- {splits['splits']['train']:,} training, {splits['splits']['val']:,} validation and {splits['splits']['test']:,} test items; "
        f"{sum(splits['left_out'].values()):,} left out because they look like test items, or link the splits.",
        "",
        "## Quality on the test split",
        "",
        "| metric | value |",
        "|---|---|",
        *(f"| {name} | {_number(value)} |" for name, value in metrics.items()),
        "",
        *([f"**{gap}**", ""] if gap else []),
        *_table(title, rows),
        "## What it took",
        "",
        "| what | time | energy | carbon | with the machine's making (SCI) |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in costs),
        "",
        f"Single predictions, one {kind.contract.noun} at a time. The SCI needs the section `machine` of the scenario.",
        "",
        "## Before you use it",
        "",
        kind.judge.caution,
        "",
    ]
    return "\n".join(lines)


def comparison(champion: int | None, reason: str, slices: Sequence[dict[str, Any]]) -> str:
    """A section of the card, added when the gate has compared: both models by label and by slice.

    Args:
        champion: the version that the model was held against; None where there was none.
        reason: the gate's, in a sentence.
        slices: of `evergreen.evaluation.gate.Slice`.
    """
    at = f"{datetime.now(UTC):%Y-%m-%d at %H:%M:%S} UTC"
    if champion is None:
        return f"{AGAINST} no champion, on {at}\n\nAsked whether it may be the first one, the gate said: {reason}.\n"
    rows = [
        f"| {row['column']} {markdown(str(row['value']))} | {row['items']:,} | {_range(row, 'champion')} | {_range(row, 'challenger')} | {row['gained']:,} | "
        f"{row['lost']:,} | {'too few' if row['p_value_worse'] is None else figures.short(row['p_value_worse'])} |"
        for row in slices
    ]
    return "\n".join(
        [
            f"{AGAINST} version {champion}, the champion on {at}",
            "",
            f"It was {markdown(reason)}.",
            "",
            "| items | number | champion's accuracy (95 %) | this model's | gained | lost | p that it is no worse |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def complete_card(workspace: Workspace, name: str, version: int, section: str) -> None:
    """Add a comparison (`comparison`) at the end of a version's model card; what the card says already stays as it is. The gate's decision
    stands without it."""
    mlflow = connect(workspace)
    try:
        client = mlflow.MlflowClient()
        run_id = client.get_model_version(model_name(name), str(version)).run_id
        card = f"{mlflow.artifacts.load_text(f'runs:/{run_id}/{CARD}')}\n{section}"
        client.log_text(run_id, card, CARD)
        client.update_model_version(model_name(name), str(version), description=card)
    except Exception as error:  # noqa: BLE001 (the decision holds, also where it cannot be recorded)
        log.warning("The comparison could not be written into the model card of version %s (%s).", version, error)


def trained_from(training: dict[str, Any]) -> str:
    """What a training began with, by the model's `settings.json`."""
    return f"version {training['start']['version']}" if "start" in training else "scratch"


def _table(title: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    return [
        f"### {title}",
        "",
        f"| {' | '.join(rows[0])} |",
        f"|{'---|' * len(rows[0])}",
        *(f"| {' | '.join(markdown(str(value)) for value in row.values())} |" for row in rows),
        "",
    ]


def _number(value: Any) -> str:
    return "unknown" if value is None else figures.short(value, 4) if isinstance(value, float) else f"{value:,}"


def _range(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return "–"
    return f"{row[name]:.1%} ({row[f'{name}_low']:.1%} to {row[f'{name}_high']:.1%})"
