"""The mean absolute error, against that of saying that nothing changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen.kinds.base.comparison import Baseline
from evergreen.kinds.base.judge import Evaluated, Judge, Outputs, Plot
from evergreen.kinds.base.split import Split
from tests.support.readings.comparison import ERROR, ErrorComparison, interval
from tests.support.readings.settings import ReadingsScenario

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ReadingsJudge(Judge[ReadingsScenario]):
    metrics = (ERROR,)
    plot = Plot("readings.csv", "scatter", x="actual", y="predicted")
    caution = "It knows nothing but the readings before."

    def predictions(self, outputs: Outputs, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> np.ndarray:
        numbers: np.ndarray = outputs["next"][:, 0].astype(np.float64)
        return numbers

    def measure(self, split: Split, outputs: Outputs) -> dict[str, float]:
        errors = np.abs(outputs["next"][:, 0] - split["next"])
        low, high = interval(errors, split["day"])
        return {
            "mean_absolute_error": float(errors.mean()),
            "mean_absolute_error_low": low,
            "mean_absolute_error_high": high,
            "error_variance": float(errors.var()),
        }

    def write(self, evaluated: Evaluated, folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {
            "id": evaluated.ids,
            "source": evaluated.sources,
            "label": evaluated.split["next"],
            "predicted": evaluated.outputs["next"][:, 0],
        }
        pq.write_table(pa.table(columns), folder / "predictions.parquet")

    def plotted(self, split: Split, outputs: Outputs) -> str:
        rows = zip(split["next"].tolist(), outputs["next"][:, 0].tolist(), strict=True)
        return "actual,predicted\n" + "".join(f"{actual},{predicted}\n" for actual, predicted in rows)

    def use(self, settings: Mapping[str, Any]) -> str:
        return f"Takes the last {settings['history']} readings; gives the next one, in °C."

    def learning_curve(self, history: Sequence[Mapping[str, float]]) -> Figure:
        from matplotlib.figure import Figure

        figure = Figure()
        figure.subplots().plot([entry[ERROR.key] for entry in history])
        return figure

    def tally(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        errors = np.abs(answers - labels)
        return {"mean": float(errors.mean()), "variance": float(errors.var()), "items": len(errors)}

    def recorded_tally(self, measured: Mapping[str, float | None]) -> dict[str, float]:
        keys = {"mean": "mean_absolute_error", "variance": "error_variance", "items": "test_items"}
        return {name: measured[key] or 0.0 for name, key in keys.items()}

    def worse(self, then: Mapping[str, float], now: Mapping[str, float], level: float) -> tuple[bool, str]:
        from scipy.stats import ttest_ind_from_stats

        figures = [(one["mean"], one["variance"] ** 0.5, one["items"]) for one in (now, then)]
        test = ttest_ind_from_stats(*figures[0], *figures[1], equal_var=False, alternative="greater")
        words = f"the mean error on new readings is {ERROR.text(now['mean'])}, and was {ERROR.text(then['mean'])}"
        return bool(test.pvalue <= level), words

    def compare(
        self, scenario: ReadingsScenario, split: Split, champion: np.ndarray, challenger: np.ndarray
    ) -> ErrorComparison:
        actual = split["next"]
        return ErrorComparison(np.abs(champion - actual), np.abs(challenger - actual), split["day"], f"{split.name} reading")

    def baseline(self, scenario: ReadingsScenario, split: Split, challenger: np.ndarray, train: Split) -> Baseline:
        compared = self.compare(scenario, split, split["history"][:, -1].astype(np.float64), challenger)
        naive, model = (ERROR.text(float(errors.mean())) for errors in (compared.champion, compared.challenger))
        return Baseline(compared, "saying that nothing changes", f"mean error {model}, against {naive}", (), 0.0)
