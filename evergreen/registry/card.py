"""The model card: what a registered model is, its quality, data and costs (after Mitchell et al. 2019, arXiv 1810.03993)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen import figures
from evergreen.evaluation.gate import Slice
from evergreen.kinds.base.judge import Breakdown
from evergreen.kinds.base.kind import kind_of
from evergreen.kinds.base.metric import Metric
from evergreen.names import markdown
from evergreen.registry.models import connect, model_name
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace

if TYPE_CHECKING:
    from jinja2 import Environment

log = logging.getLogger("evergreen")

CARD = "model_card.md"  # an artifact of a model version's run in MLflow


@dataclass(frozen=True)
class ModelCard:
    """The content of a version's card.

    Attributes:
        metrics: on the test split (`tasks.evaluate.Evaluation`).
        breakdown: quality on subsets of the items.
        answer_rules: when the model answers, and what that gives.
        slices: gaps between slices of the items.
        gap: the difference between the quality on val and on test, in words; None if it may be due to chance.
        splits: number of items by split.
        left_out: number of items in no split.
        data_version: the hash of the scenario's items.
        git_commit: of the checkout; None if it is not a repository.
        training: the model's `settings.json`.
        costs: of each stage, and of 1,000 predictions.
    """

    metrics: Mapping[str, float | None]
    breakdown: Breakdown
    answer_rules: Breakdown
    slices: Breakdown
    gap: str | None
    splits: Mapping[str, int]
    left_out: int
    data_version: str
    git_commit: str | None
    training: Mapping[str, Any]
    costs: Sequence[CardCost]

    def markdown(self, scenario: Scenario) -> str:
        """The card as Markdown."""
        template = _templates().get_template("card.md.j2")
        return template.render(card=self, scenario=scenario, kind=kind_of(scenario), start=trained_from(self.training))


@dataclass(frozen=True)
class CardCost:
    """The cost of a stage or of 1,000 predictions, as text.

    Attributes:
        what: the stage's name, or the predictions.
        sci: carbon including the machine's manufacture.
    """

    what: str
    time: str
    energy: str
    carbon: str
    sci: str


def comparison(champion: int | None, reason: str, slices: Sequence[Slice], metric: Metric) -> str:
    """A section of the card, added after the gate's comparison: both models by slice.

    Args:
        champion: the version that the model was compared with; None if there was none.
        reason: the reason for the gate's decision, in a sentence.
        metric: the metric of the slices (`Comparison.figures`).
    """
    template = _templates().get_template("card_comparison.md.j2")
    return template.render(champion=champion, reason=reason, slices=slices, metric=metric, now=datetime.now(UTC))


def complete_card(workspace: Workspace, name: str, version: int, section: str) -> None:
    """Append a comparison (`comparison`) to a version's model card. If that fails, the gate's decision stands without it."""
    mlflow = connect(workspace)
    try:
        client = mlflow.MlflowClient()
        run_id = client.get_model_version(model_name(name), str(version)).run_id
        card = f"{mlflow.artifacts.load_text(f'runs:/{run_id}/{CARD}')}\n{section}"
        client.log_text(run_id, card, CARD)
        client.update_model_version(model_name(name), str(version), description=card)
    except Exception as error:  # noqa: BLE001 (the decision stands even if it cannot be recorded)
        log.warning("The comparison could not be written into the model card of version %s (%s).", version, error)


def trained_from(training: Mapping[str, Any]) -> str:
    """What a training started from, according to the model's `settings.json`."""
    return f"version {training['start']['version']}" if "start" in training else "scratch"


def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # noqa: S701 (Markdown: text from the data goes through the filter `markdown`)
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"markdown": markdown, "number": _number, "short": figures.short, "thousands": "{:,}".format}
    return environment


def _number(value: float | None) -> str:
    return "unknown" if value is None else figures.short(value, 4) if isinstance(value, float) else f"{value:,}"
