"""The page of a data set: what it counts, that names are never markup, and that one script alone may run."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evergreen.data.dataset import Correction, Withdrawal, stage_records
from evergreen.kinds.base.explorer import Exploration, LabelError, MapPoint, Outlier, SimilarItems, TrivialBaseline
from evergreen.kinds.classify.contract import ImageContract
from evergreen.reporting.data_counts import Change, Counts, count_items
from evergreen.reporting.data_page import COLOURS, MAP_BYTES, probability, render, summary
from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace
from tests.tasks.test_validate import batch

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WHEN = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
HOSTILE = "</script><script>hacked=1</script><img src=x onerror=hacked=1>\"'&amp;"
PICTURE = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
IDS = [f"{number:064x}" for number in range(12)]
LABELS = {id: HOSTILE if number % 3 else "nut" for number, id in enumerate(IDS)}
COUNTS = Counts(
    12, 1, {HOSTILE: 8, "nut": 4}, {HOSTILE: 12}, {"2026-01-02": 12}, {"source": 7, "inbox": 5}, {"label-conflict": 2},
    (Change("00001-b", "2026-01-03", "inbox", 5, 0, 1, 0, tuple(IDS[7:])), Change("00000-a", "2026-01-02", "source", 7, 0, 0, 0, tuple(IDS[:7]))),
    LABELS, dict.fromkeys(IDS, HOSTILE),
)  # fmt: skip
FOUND = Exploration(
    {"Formats": [{"format": HOSTILE, "images": 12}]},
    [SimilarItems((IDS[0], IDS[1]), ("nut", HOSTILE)), SimilarItems((IDS[3], IDS[6]), ("nut", "nut"))],
    "By their edges.",
    [Outlier(IDS[2], 3.25)],
    [LabelError(IDS[4], HOSTILE, "nut", 0.0001, 0.98, (IDS[0], IDS[3]))],
    1,
    [MapPoint(id, number / 11, 0.5) for number, id in enumerate(IDS)],
    [TrivialBaseline("always the commonest label", 0.667, 0.4, 0.9, 0.5, 12), TrivialBaseline("size", 1.0, 0.8, 1.0, 1.0, 12)],
    "Size solves this set.",
    ["Nothing was left out."],
)


def pictures(ids: Sequence[str]) -> Mapping[str, str | None]:
    return {id: None if id == IDS[2] else PICTURE for id in ids}


def page(found: Exploration | None = FOUND, counts: Counts = COUNTS) -> str:
    return render("parts", "image", counts, found, pictures, made_at=WHEN)


def words(text: str) -> str:
    text = re.sub(r"(?s)<style.*?</style>|<script.*?</script>", "", text)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text)))


def test_the_page_says_what_matters_first_and_shows_each_finding_with_its_evidence() -> None:
    text = words(page())
    assert "12 images in use, 2 labels. 1 image withdrawn: they are not shown here. Size solves this set." in text
    assert (
        "About 1 label may be wrong" in text and "4 images in 2 groups of near-duplicates; 1 group has different labels" in text
    )
    assert "nut? 98.0 %, against" in text and "under 0.1 %" in text and "3.2 times" in text
    assert "00001-b 2026-01-03 inbox 5 0 1 0" in text and "always the commonest label 67 % (40 to 90 %) 50.0 % 12" in text
    assert "no picture" in text and "label-conflict 2" in text


def test_names_are_never_markup_and_the_script_that_runs_is_the_pages_own() -> None:
    text = page()
    assert "<script>hacked" not in text and "<img src=x" not in text
    scripts = re.findall(r"(?s)<script>(.*?)</script>", text)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert re.findall(r"script-src ([^;]+);", html.unescape(text))[0] == f"'sha256-{digest}'"
    (data,) = re.findall(r'(?s)<script type="application/json" id="map-data">(.*?)</script>', text)
    assert json.loads(data)[1] == [HOSTILE, HOSTILE, PICTURE]


def test_without_an_explorer_the_page_has_the_counts_alone() -> None:
    text = page(None)
    assert "For this kind of data the page shows the counts alone" in text and "By label" in text
    assert "<script" not in text and 'id="errors"' not in text
    assert "suspects" not in summary(COUNTS, None, "image")


def test_the_page_stays_small_by_leaving_out_pictures_of_the_map_and_says_so() -> None:
    large = "data:image/png;base64," + "A" * (MAP_BYTES // 5)
    text = render(
        "parts",
        "image",
        COUNTS,
        replace(FOUND, label_errors=[], duplicates=[], outliers=[]),
        lambda ids: dict.fromkeys(ids, large),
        made_at=WHEN,
    )
    (data,) = re.findall(r'(?s)id="map-data">(.*?)</script>', text)
    assert len(data) < 1.1 * MAP_BYTES and "8 dots have no picture" in words(text)


def test_further_labels_share_a_colour_on_the_map() -> None:
    many = {f"label {number:02}": 1 for number in range(20)}
    text = page(counts=replace(COUNTS, by_label=many, labels=dict(zip(IDS, many, strict=False))))
    assert len(re.findall("<button", text)) == COLOURS and "others</button>" in text


def test_programs_get_the_counts_the_suspects_and_the_baselines() -> None:
    found = json.loads(json.dumps(summary(COUNTS, FOUND, "image")))
    assert (
        found["items"] == 12 and found["by_label"] == {HOSTILE: 8, "nut": 4} and found["by_source"] == {"source": 7, "inbox": 5}
    )
    (suspect,) = found["suspects"]
    assert (suspect["id"], suspect["suggested"], suspect["source"], suspect["similar"]) == (
        IDS[4],
        "nut",
        HOSTILE,
        [IDS[0], IDS[3]],
    )
    assert [group["conflict"] for group in found["near_duplicates"]] == [True, False]
    assert (
        found["baselines"][1]["balanced_accuracy"] == 1
        and found["changes"][0]["withdrawn"] == 1
        and "new_ids" not in found["changes"][0]
    )


@pytest.mark.parametrize(
    ("value", "text"), [(0.0004, "under 0.1 %"), (0.5, "50.0 %"), (0.9999, "over 99.9 %"), (0.999, "99.9 %")]
)
def test_probabilities_have_no_digits_that_mean_nothing(value: float, text: str) -> None:
    assert probability(value) == text


def test_the_counts_are_of_the_items_in_use_with_their_present_labels(workspace: Workspace) -> None:
    path = workspace.scenarios / "quickstart.yaml"
    path.write_text(re.sub(r"labels: .*", "labels: [cat, dog]", path.read_text()))
    folder = workspace.data("quickstart")
    batch(folder / "00000-aaaaaaaaaaaa", {"cat": 3, "dog": 2})
    batch(folder / "00001-bbbbbbbbbbbb", {"cat": 2}, salt="new")
    ids = [hashlib.sha256(f"/cat/{number}".encode()).hexdigest() for number in range(2)]
    stage_records(
        folder, 2,
        [Correction(ids[0], "dog", "cat", "Ann", "2026-01-05T00:00:00+00:00", "a.csv")],
        [Withdrawal(ids[1], True, "Ann", "2026-01-04T00:00:00+00:00", "a.csv")],
    )  # fmt: skip
    scenario = load_scenario(workspace.scenarios, "quickstart")
    found = count_items(scenario, workspace, ImageContract())
    assert (found.items, found.withdrawn, found.by_label) == (6, 1, {"cat": 3, "dog": 3})
    assert found.by_day == {"2026-01-02": 6} and found.by_group == {} and found.by_origin == {"not recorded": 6}
    newest, *earlier = found.changes
    assert (newest.at, newest.new, newest.corrected, newest.withdrawn, newest.reinstated) == ("2026-01-05", 0, 1, 1, 0)
    assert [(one.new, len(one.new_ids)) for one in earlier] == [(2, 2), (5, 5)]
    assert found.labels[ids[0]] == "dog" and ids[1] not in found.labels


@pytest.mark.browser
def test_the_page_works_in_a_browser_with_no_network(tmp_path: Path) -> None:
    if not CHROMIUM:
        pytest.skip("no Chromium: install Debian's package chromium to see the page tested")
    from playwright.sync_api import sync_playwright

    file = tmp_path / "look.html"
    file.write_text(page(), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        said: list[str] = []
        asked: list[str] = []
        for width in (1200, 360):
            shown = browser.new_page(viewport={"width": width, "height": 800})
            shown.on("console", lambda message: said.append(message.text))
            shown.on("request", lambda request: asked.append(request.url))
            shown.goto(file.as_uri())
            assert shown.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
            for link in shown.locator("nav a").all():
                assert shown.locator(str(link.get_attribute("href"))).count() == 1
            card, dots = shown.locator("#map-card"), shown.locator("#map circle")
            assert not card.is_visible()
            dots.nth(4).hover()
            assert card.is_visible() and card.locator("b").inner_text() == HOSTILE and card.locator("img").is_visible()
            dots.nth(2).hover()
            assert card.locator(".none").is_visible() and not card.locator("img").is_visible()
            shown.locator(".legend button").first.click()
            assert shown.locator("#map circle.faint").count() == 4
            assert shown.evaluate("typeof hacked") == "undefined"
        browser.close()
    assert said == [] and [url for url in asked if not url.startswith("data:")] == [file.as_uri()] * 2
