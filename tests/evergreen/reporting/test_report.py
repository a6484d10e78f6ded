"""The report: what it says, what it must not say, and that names are never markup."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from evergreen.kinds.base.judge import Review
from evergreen.kinds.classify.comparison import METRICS
from evergreen.kinds.classify.metrics import label_quality
from evergreen.kinds.classify.mistakes import Example, Mistake, Mistakes, rendered
from evergreen.reporting.history import DataState, Event, History, Quarantined, Thumbnail, Version
from evergreen.reporting.report import answer, figures, notes, render

WHEN = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
HOSTILE = "<script>hacked=1</script><img src=x onerror=hacked=1>\"'&amp;"


def version(number: int, accuracy: float | None = 0.9, wh_per_1000: float | None = 0.01, **others: Any) -> Version:
    around = (None, None) if accuracy is None else (accuracy - 0.02, accuracy + 0.02)
    made = Version(
        number, WHEN + timedelta(days=number), f"{number:032x}", ("00000-a",), {"accuracy": (accuracy, *around), "f1_macro": (accuracy, *around)}, 500, 2.0, 0.8,
        ("estimate",), 60.0, 0.7, None, wh_per_1000, 0.0, True, "there was no champion yet", None, None,
    )  # fmt: skip
    return replace(made, **others)


def history(*versions: Version, champion: int | None = 1, **others: Any) -> History:
    made = History("quickstart", champion, None, versions, (), (), Quarantined({}, ()), 0, None, None, tuple(METRICS.values()))
    return replace(made, **others)


def page(*histories: History) -> str:
    return render(histories, made_at=WHEN)


def test_the_answer_tells_what_retraining_brought_and_took() -> None:
    found = history(version(1, 0.9), version(2, 0.85), version(3, 0.95), champion=3)
    assert answer(found) == (
        "Version 3 is in use, accuracy 95.0 %: 5.0 points better than version 1, for 2 retrainings that took 4.0 ± 1.6 Wh, 1.4 gCO2e."
    )
    assert "brought nothing better, for 4.0 ± 1.6 Wh" in answer(replace(found, champion=1))
    assert "5.0 points worse than version 1" in answer(replace(found, champion=2))
    assert answer(history(version(1))) == "Version 1 is in use, accuracy 90.0 %. Nothing has been retrained yet."
    assert answer(history(version(1), champion=None)) == "1 version registered, and none is in use."
    assert answer(history()) == "No model yet. Train one with: evergreen run quickstart"


def test_the_answer_is_not_given_for_more_than_it_is_worth() -> None:
    close = history(version(1, 0.9), version(2, 0.91, test_items=600), champion=2, unfinished=2)
    reported = " ".join(notes(close))
    assert "overlap: taken alone, the difference may be chance" in reported
    assert "different test splits (500 and 600 items)" in reported and "2 runs ended without a model" in reported
    assert list(notes(history(version(1, 0.5), version(2, 0.9), champion=2))) == []


def test_a_gap_between_val_and_test_is_said_of_the_version_in_use() -> None:
    gap = "It did better on val than on test, by more than chance."
    assert gap in page(history(version(1, gap=gap))) and gap not in page(history(version(1), version(2, gap=gap)))


def test_what_is_unknown_is_never_zero() -> None:
    bare = version(2, None, None, energy_wh=None, energy_uncertainty_wh=None, carbon_gco2e=None)
    text = re.sub(r"<(style|svg).*?</\1>", "", page(history(bare, champion=2)), flags=re.DOTALL)
    row = re.search(r'<tr class="champion">.*?</tr>', text, re.DOTALL)
    assert row is not None and row[0].count("<td>unknown") == 5 and ">0" not in row[0]
    assert "nothing recorded yet" in text and "the scenario names no price" in text
    assert "The energy of a prediction was not measured" in text
    partly = history(version(1), replace(bare, quality=version(2, 0.95).quality), champion=2)
    assert "unknown energy, unknown carbon" in answer(partly)
    assert "2.0 Wh and 1 unknown" in page(partly)


def test_what_waiting_and_warm_starts_saved_is_added_up() -> None:
    found = history(version(1, saved_by_waiting_gco2e=1.5), version(2, saved_by_waiting_gco2e=2.0, saved_by_warm_start_wh=0.25))
    text = page(found)
    assert ">3.5 gCO2e<" in text and "in 2 runs" in text and ">0.25 Wh<" in text and "in 1 run<" in text


def test_money_is_shown_where_it_is_known() -> None:
    priced = history(version(1, money=0.12), version(2, money=0.2), currency="EUR")
    assert "0.32 EUR" in page(priced) and "Money to make it" in page(priced)
    assert "Money to make it" not in page(history(version(1)))


def test_names_are_never_markup() -> None:
    shown = Thumbnail("data:image/png;base64,AAAA", HOSTILE, HOSTILE, HOSTILE)
    state = DataState(HOSTILE, (1,), WHEN, {HOSTILE: 3}, {HOSTILE: 3}, 1, 0, (shown, replace(shown, address=None)))
    found = history(version(1, reason=HOSTILE), data=(state,), quarantined=Quarantined({HOSTILE: 1}, (shown,)))
    text = page(found)
    assert "<script" not in text and "<img src=x" not in text
    assert text.count("&lt;script&gt;") >= 8


def test_the_page_fetches_nothing_and_stays_small_and_the_same() -> None:
    many = history(*(version(n, 0.8 + n / 100, 0.01 * n, money=0.1) for n in range(1, 11)), champion=10, currency="EUR")
    text = page(many, replace(many, scenario="cifar10"))
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in text and "url(http" not in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert len(text.encode()) < 300_000
    assert text == page(many, replace(many, scenario="cifar10"))


def test_a_chart_is_reported_in_words_and_takes_the_pages_colours() -> None:
    text = page(history(version(1), version(2, 0.95), champion=2))
    assert text.count('role="img"') == 4 and "accuracy: version 1 90.0, version 2 95.0" in text
    svgs = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert not any("#0102" in svg for svg in svgs) and all("var(--first)" in svg for svg in svgs)


def test_changes_of_champion_and_of_the_data_are_reported() -> None:
    states = (
        DataState("a" * 32, (1,), WHEN, {"cat": 5}, {"cat": 5}, 0, 0, ()),
        DataState("b" * 32, (2, 3), WHEN, {"cat": 6, "dog": 2}, {"dog": 2, "cat": 1}, 1, 0, ()),
        DataState("c" * 32, (4,), WHEN, None, None, None, None, ()),
        DataState(None, (), None, {"cat": 7}, {"cat": 7}, 0, 0, ()),
    )
    events = (Event(WHEN, "promoted", 1, None), Event(WHEN, "promoted", 2, 1), Event(None, "rolled back to", 1, 2))
    text = page(history(version(1), version(2), data=states, events=events))
    assert "Version 2 was promoted in place of version 1 on 5 Jan 2026, 09:30 UTC" in text
    assert "Version 1 was put back in place of version 2" in text
    assert "Model versions 2, 3, 5 Jan 2026: 3 items added, 1 label corrected; 8 items in all" in text
    assert "its items are not all in data/ any more" in text and "Not trained on yet" in text


POINTS = st.lists(
    st.tuples(st.none() | st.sampled_from([0.7, 0.8, 0.9]), st.none() | st.sampled_from([0.1, 0.2, 0.3])),
    min_size=1,
    max_size=8,
)


@given(POINTS)
def test_the_front_is_what_nothing_beats(points: list[tuple[float | None, float | None]]) -> None:
    found = history(*(version(n, *point) for n, point in enumerate(points, start=1)))
    measured = {n: (a, w) for n, (a, w) in enumerate(points, start=1) if a is not None and w is not None}
    best = found.front()
    assert bool(best) == bool(measured) and set(best) <= set(measured)
    for n, (a, w) in measured.items():
        # The intervals of accuracy are 2 points either way, and the energies are exact.
        beaten = any(a2 >= a and w2 <= w and (a2 - 0.02 > a + 0.02 or w2 < w) for a2, w2 in measured.values())
        assert (n in best) != beaten


def test_programs_get_null_for_what_is_unknown_and_no_pictures() -> None:
    shown = Thumbnail("data:image/png;base64,AAAA", "cat", "cat/1.png")
    reported = figures(history(version(1), data=(DataState(None, (), None, None, None, None, None, (shown,)),)))
    assert reported["versions"][0]["money"] is None and reported["front"] == [1] and "thumbnails" not in reported["data"][0]


def test_no_version_is_off_the_front_by_a_difference_that_the_intervals_leave_open() -> None:
    close = history(
        version(1, 0.900, 0.010, energy_uncertainty_wh_per_1000=0.004),
        version(2, 0.905, 0.009, energy_uncertainty_wh_per_1000=0.0036),
    )
    assert close.front() == [1, 2]
    cheaper = history(
        version(1, 0.900, 0.010, energy_uncertainty_wh_per_1000=0.004),
        version(2, 0.905, 0.002, energy_uncertainty_wh_per_1000=0.0008),
    )
    assert cheaper.front() == [2]
    better = history(
        version(1, 0.80, 0.010, energy_uncertainty_wh_per_1000=0.004),
        version(2, 0.95, 0.010, energy_uncertainty_wh_per_1000=0.004),
    )
    assert better.front() == [2]


def test_figures_have_the_digits_that_their_uncertainty_carries() -> None:
    quality = {"accuracy": (0.994413, 0.9799, 0.9985), "f1_macro": (0.994413, 0.9799, 0.9985)}
    few = version(1, None, 1.45e-4, quality=quality, energy_uncertainty_wh_per_1000=5.8e-5, test_items=358)
    text = re.sub(r"<(style|svg).*?</\1>", "", page(history(few)), flags=re.DOTALL)
    assert "99.4 %" in text and "99.44" not in text and "0.14 ± 0.06 mWh" in text
    assert not re.search(r"\de-\d", text)


def mistakes(*labels: str, **unknown: int) -> Mistakes:
    """Of two labels: one item of three of the first is taken for the second; and so many are not known, by the reason."""
    import numpy as np

    example = Example("ab" * 32, f"{labels[0]}/photo 7.png", 0.973, "data:image/png;base64,AAAA")
    matrix = ((2, 1), (0, 4))
    return Mistakes(
        labels, matrix, tuple(label_quality(np.array(matrix), labels)), (Mistake(*labels, 1, 3, (example,)),), unknown
    )


def test_the_page_shows_what_the_version_in_use_gets_wrong() -> None:
    text = page(history(version(1), review=Review({}, rendered(mistakes("bolt", "nut")))))
    assert "1 item of 7 in the test split" in text and "bolt <span" in text and "1 of 3 items" in text
    assert "photo 7.png" in text and "abababababab" in text and "97.3 % sure" in text
    assert "Confusion matrix" in text and text.count('class="recall"') == 2
    assert "It answered" not in text
    text = page(history(version(1), review=Review({}, rendered(mistakes("bolt", "nut", unlike=2, unsure=1)))))
    assert "1 item of 10 in the test split. It answered 7 of them (70.0 %), and 85.7 % of these answers are right" in text
    assert "it did not know the others: 2 unlike, 1 unsure." in text
    assert HOSTILE not in page(history(version(1), review=Review({}, rendered(mistakes(HOSTILE, "$x$")))))
