"""The errors of forecasts, how often their intervals hold, and whether a simple baseline is better."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evergreen import figures
from evergreen.kinds.base.comparison import Baseline
from evergreen.kinds.base.judge import Breakdown, Evaluated, Judge, Outputs, Plot
from evergreen.kinds.base.metric import Metric
from evergreen.kinds.base.split import Split
from evergreen.kinds.forecast import pictures
from evergreen.kinds.forecast.baselines import BASELINES, MODELS, NAIVE
from evergreen.kinds.forecast.codec import in_order
from evergreen.kinds.forecast.comparison import MAE, METRICS, R2, RMSE, ErrorComparison, interval, mean_error
from evergreen.kinds.forecast.settings import HIGH, LOW, ForecastScenario

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Errors of neighbouring readings depend on each other; so many of them count as one where a test assumes independent ones.
DEPENDENT = 12
COVERAGE = Metric("coverage_80", "coverage of the 80 % interval")
PINBALL = Metric("pinball", "pinball loss", higher_is_better=False, unit="", margins="relative")


class ForecastJudge(Judge[ForecastScenario]):
    """Measures and compares forecasts."""

    metrics = (MAE, RMSE)
    details = (R2, COVERAGE, PINBALL)
    pictures = {
        "forecast.png": "Forecast with its 80 % interval",
        "errors.png": "Error by hour and by horizon",
        "coverage.png": "Coverage of the intervals",
    }
    tables = {"baselines.csv": "Every model by horizon"}
    plot = Plot("forecast.csv", "scatter", x="actual", y="forecast")
    caution = (
        "It assumes that the series goes on as it was in training; a day unlike all others, such as a public holiday, is forecast "
        "like a usual one unless a column says so. Intervals hold on average, not for each hour."
    )

    def predictions(self, outputs: Outputs, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> np.ndarray:
        return in_order(outputs["forecast"])

    def measure(self, split: Split, outputs: Outputs) -> dict[str, float]:
        """The figures at the first horizon, and with a suffix `_h` and the number of steps those of each; the same of the
        baselines; and those of items whose history runs across no gap, with the suffix `_no_gap`."""
        output, actual = in_order(outputs["forecast"]).astype(np.float64), split["actual"]
        errors = np.abs(output[:, 0, 0] - actual)
        found = _errors(errors, actual) | {"error_variance": float(errors.var())}
        for metric in METRICS.values():
            low, high = interval(errors, split["local"], metric.key)  # type: ignore[arg-type]
            found |= {f"{metric.key}_low": low, f"{metric.key}_high": high}
        shape = split.facts["forecast"]
        low, high = (1 + shape["quantiles"].index(level) for level in (LOW, HIGH))
        every = split["targets"].astype(np.float64)
        for column, horizon in enumerate(shape["horizons"]):
            there, suffix = ~np.isnan(every[:, column]), f"_h{horizon}"
            if not there.any():
                continue
            truth, one = every[there, column], output[there, column]
            inside = (truth >= one[:, low]) & (truth <= one[:, high])
            own = _errors(np.abs(one[:, 0] - truth), truth)
            own |= {"coverage_80": float(inside.mean()), "pinball": _pinball(one[:, 1:], truth, shape["quantiles"])}
            by_hour = split["baseline_quantiles"][there, column].astype(np.float64)
            own["pinball_residuals_by_hour"] = _pinball(by_hour, truth, shape["quantiles"])
            for place, name in enumerate(BASELINES):
                compared = np.abs(split["baselines"][there, place, column] - truth)
                own |= {f"{key}_{name.replace(' ', '_')}": value for key, value in _errors(compared, truth).items()}
            found |= {f"{key}{suffix}": value for key, value in own.items()}
            if column == 0:
                found |= {key: value for key, value in own.items() if key not in found}
        without = ~split["crosses"]
        if without.any() and not without.all():
            found |= {f"{key}_no_gap": value for key, value in _errors(errors[without], actual[without]).items()}
        weeks = split["weeks_ago"][:, 0]
        found["same_weekday_older_than_a_week"] = float((weeks != 1).mean())
        return found

    def breakdown(self, split: Split, outputs: Outputs) -> Breakdown:
        measured, rows = self.measure(split, outputs), []
        step = int(split.facts["forecast"]["step_seconds"])
        horizons = split.facts["forecast"]["horizons"]
        for name in ("this model", *BASELINES):
            suffix = "" if name == "this model" else f"_{name.replace(' ', '_')}"
            row: dict[str, str | int] = {"model": name}
            for horizon in horizons:
                values = [figures.number(measured.get(f"{key}{suffix}_h{horizon}")) for key in ("mae", "rmse")]
                row[figures.duration(horizon * step)] = " / ".join(values)
            rows.append(row)
        older = figures.percent(measured["same_weekday_older_than_a_week"])
        notes = [f"The latest same weekday is older than a week, or there is none, for {older} of the items."]
        better = _better(measured, "mae")
        if better:
            notes.append(f"Better than this model at the first horizon: {', '.join(better)}.")
        return Breakdown("Mean absolute error / root mean squared error by horizon", tuple(rows), tuple(notes))

    def write(self, evaluated: Evaluated, folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        split, output = evaluated.split, in_order(evaluated.outputs["forecast"])
        shape = split.facts["forecast"]
        columns: dict[str, Any] = {
            "id": evaluated.ids, "source": evaluated.sources, "label": split["actual"], "local_seconds": split["local"],
        }  # fmt: skip
        for column, horizon in enumerate(shape["horizons"]):
            columns[f"actual_h{horizon}"] = split["targets"][:, column]
            columns[f"expected_h{horizon}"] = output[:, column, 0]
            for place, level in enumerate(shape["quantiles"]):
                columns[f"quantile_{level:g}_h{horizon}"] = output[:, column, 1 + place]
        pq.write_table(pa.table(columns), folder / "predictions.parquet")
        (folder / "baselines.csv").write_text(
            _table(self.measure(split, evaluated.outputs), shape["horizons"]), encoding="utf-8"
        )
        drawn = {
            "forecast.png": pictures.forecast(split, output, evaluated.ids),
            "errors.png": pictures.errors(split, output),
            "coverage.png": pictures.coverage(split, output),
        }
        for name, (figure, ids) in drawn.items():
            metadata: dict[str, Any] = {"Software": None} | ({"Items": " ".join(ids)} if ids else {})
            figure.savefig(folder / name, dpi=100, metadata=metadata)

    def plotted(self, split: Split, outputs: Outputs) -> str:
        rows = zip(split["actual"].tolist(), outputs["forecast"][:, 0, 0].tolist(), strict=True)
        return "actual,forecast\n" + "".join(f"{actual},{forecast}\n" for actual, forecast in rows)

    def use(self, settings: Mapping[str, Any]) -> str:
        shape = settings["forecast"]
        ahead = ", ".join(figures.duration(horizon * shape["step_seconds"]) for horizon in shape["horizons"])
        return (
            f"Takes the last {shape['history']} readings of a series, {figures.duration(shape['step_seconds'])} apart, and the time of "
            f"the first forecast; gives the expected value and the quantiles {', '.join(map(str, shape['quantiles']))} {ahead} ahead."
        )

    def learning_curve(self, history: Sequence[Mapping[str, float]]) -> Figure:
        return pictures.learning_curve(history)

    def tally(self, answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        errors = np.abs(answers - labels)
        return {"mean": float(errors.mean()), "variance": float(errors.var()), "items": len(errors)}

    def recorded_tally(self, measured: Mapping[str, float | None]) -> dict[str, float]:
        keys = {"mean": "mae", "variance": "error_variance", "items": "test_items"}
        return {name: measured[key] or 0.0 for name, key in keys.items()}

    def worse(self, then: Mapping[str, float], now: Mapping[str, float], level: float) -> tuple[bool, str]:
        from scipy.stats import ttest_ind_from_stats

        words = f"the {MAE.title} on new readings is {MAE.text(now['mean'])}, and was {MAE.text(then['mean'])}"
        counts = [one["items"] / DEPENDENT for one in (now, then)]
        if min(counts) < 2:
            return False, words
        stats = [(one["mean"], one["variance"] ** 0.5, count) for one, count in zip((now, then), counts, strict=True)]
        test = ttest_ind_from_stats(*stats[0], *stats[1], equal_var=False, alternative="greater")
        return bool(test.pvalue <= level), words

    def compare(
        self, scenario: ForecastScenario, split: Split, champion: np.ndarray, challenger: np.ndarray
    ) -> ErrorComparison:
        both = [np.abs(one[:, 0, 0].astype(np.float64) - split["actual"]) for one in (champion, challenger)]
        return ErrorComparison(both[0], both[1], split["local"], scenario.promote.metric, f"{split.name} reading")

    def objections(self, scenario: ForecastScenario, split: Split, challenger: np.ndarray) -> tuple[str, ...]:
        """The baselines with a lower error; of a linear model all but the linear one, which it is itself."""
        metric = METRICS[scenario.promote.metric]
        own = self._error(scenario, np.abs(challenger[:, 0, 0].astype(np.float64) - split["actual"]))
        itself = MODELS[0] if scenario.train.model == "linear" else ""
        errors = {name: self._error(scenario, _baseline_errors(split, name)) for name in BASELINES if name != itself}
        return tuple(
            f"a baseline is better: {name}, {metric.title} {metric.text(error)} against {metric.text(own)}"
            for name, error in errors.items()
            if error < own
        )

    def baseline(self, scenario: ForecastScenario, split: Split, challenger: np.ndarray, train: Split) -> Baseline:
        """The best of the baselines without a model, which must be beaten by more than chance; the linear model and the boosted
        trees must not be better."""
        errors = {name: _baseline_errors(split, name) for name in NAIVE}
        best = min(errors, key=lambda name: self._error(scenario, errors[name]))
        own = np.abs(challenger[:, 0, 0].astype(np.float64) - split["actual"])
        compared = ErrorComparison(errors[best], own, split["local"], scenario.promote.metric, f"{split.name} reading")
        metric = METRICS[scenario.promote.metric]
        naive, model = (metric.text(self._error(scenario, one)) for one in (errors[best], own))
        objections = tuple(one for one in self.objections(scenario, split, challenger) if best not in one)
        return Baseline(compared, f"the {best}", f"{metric.title} {model}, against {naive}", objections, 0.0)

    def _error(self, scenario: ForecastScenario, errors: np.ndarray) -> float:
        return float(mean_error(errors, np.ones((1, len(errors))), scenario.promote.metric)[0])


def _baseline_errors(split: Split, name: str) -> np.ndarray:
    found: np.ndarray = np.abs(split["baselines"][:, BASELINES.index(name), 0].astype(np.float64) - split["actual"])
    return found


def _errors(errors: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    """Mean absolute error, root mean squared error and R² (the coefficient of determination)."""
    variance = float(np.var(actual))
    squared = float((errors**2).mean())
    return {"mae": float(errors.mean()), "rmse": squared**0.5, "r2": 1 - squared / variance if variance else 0.0}


def _pinball(quantiles: np.ndarray, actual: np.ndarray, levels: Sequence[float]) -> float:
    """The mean pinball loss (Koenker and Bassett 1978) of quantiles `(items, levels)`."""
    error, level = actual[:, None] - quantiles, np.array(levels)[None]
    return float(np.maximum(level * error, (level - 1) * error).mean())


def _better(measured: Mapping[str, float], key: str) -> list[str]:
    first = {name: measured.get(f"{key}_{name.replace(' ', '_')}", np.inf) for name in BASELINES}
    return [name for name, value in first.items() if value < measured[key]]


def _table(measured: Mapping[str, float], horizons: Sequence[int]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "horizon_steps", "mae", "rmse", "r2"])
    for name in ("this model", *BASELINES):
        suffix = "" if name == "this model" else f"_{name.replace(' ', '_')}"
        for horizon in horizons:
            writer.writerow([name, horizon, *(measured.get(f"{key}{suffix}_h{horizon}", "") for key in ("mae", "rmse", "r2"))])
    return text.getvalue()
