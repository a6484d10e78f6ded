"""Data Docs: one page, for people, that a browser can show with no network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evergreen.reporting.data_docs import render

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult

pytestmark = pytest.mark.slow  # imports Great Expectations

HOSTILE = '<img src="https://example.org/x.png"><script src="//example.org/x.js"></script>&"\'$x${y}'


@pytest.fixture(scope="module")
def result() -> ExpectationSuiteValidationResult:
    """One that holds what passes, what fails with examples, what fails on numpy's numbers, and what raises."""
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    import great_expectations as gx
    import great_expectations.expectations as expect
    import numpy as np
    import pandas as pd

    table = pd.DataFrame({"label": ["cat", "dog", HOSTILE] * 4, "brightness": np.linspace(0, 1, 12, dtype=np.float32)})
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("items")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})
    expectations = [
        expect.ExpectColumnValuesToNotBeNull(column="label", description="label: given"),
        expect.ExpectColumnValuesToBeInSet(column="label", value_set=["cat", "dog"], description=f"label: no {HOSTILE}"),
        expect.ExpectColumnValuesToBeInSet(column="label", value_set=["cat", HOSTILE]),  # in Great Expectations' own words
        expect.ExpectColumnMedianToBeBetween(column="brightness", min_value=0.7, max_value=1),
        expect.ExpectColumnMaxToBeBetween(column="sharpness", max_value=1, description="sharpness: at most 1"),
    ]
    return batch.validate(gx.ExpectationSuite("pets", expectations=expectations), result_format="SUMMARY")


@pytest.fixture(scope="module")
def page(result: ExpectationSuiteValidationResult) -> str:
    return render(result, title="Data of pets", sentence=HOSTILE, failures=[HOSTILE], facts={"items": "12", HOSTILE: HOSTILE})


class Tags(HTMLParser):
    """Every tag with its attributes, and the text a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_on_the_page_can_be_fetched(page: str) -> None:
    tags = Tags(page).tags
    assert not {tag for tag, _ in tags} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "video",
        "image",
    }
    for tag, attributes in tags:
        assert not {"src", "srcset", "data", "poster", "background", "action"} & set(attributes), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#"), (tag, attributes)
        assert "url(" not in (attributes.get("style") or "")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style


def test_the_browser_may_fetch_nothing(page: str) -> None:
    policies = [attributes for tag, attributes in Tags(page).tags if tag == "meta" and "http-equiv" in attributes]
    assert policies == [{"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"}]


def test_the_page_says_what_failed_and_what_was_observed(page: str) -> None:
    text = re.sub(r"\s+", " ", Tags(page).text)
    assert "Data of pets: refused" in text
    assert "label: given" in text and "100% not null" in text
    assert "≈33.333% unexpected" in text and "4 unexpected values found" in text
    assert "median must be greater than or equal to 0.7 and less than or equal to 1.0. 0.5 " in text
    assert 'sharpness: at most 1 expect_column_max_to_be_between raised an exception:Error: The column "sharpness"' in text
    assert "site-packages" not in page
    assert page.count("text-success") - page.count(".text-success") >= 1 and 'class="fas fa-times text-danger"' in page


def test_words_from_the_data_are_text_and_never_markup(page: str) -> None:
    text = Tags(page).text
    assert f"label: no {HOSTILE}" in text
    assert text.count(HOSTILE) >= 6  # the sentence, the failure, both halves of a fact, an expectation, an unexpected value
    assert "<img" not in page and "<script" not in page


def test_rendering_leaves_the_result_as_it_was(result: ExpectationSuiteValidationResult) -> None:
    before = json.dumps(result.to_json_dict(), default=str)
    render(result, title="Data of pets", sentence="", failures=[], facts={})
    assert json.dumps(result.to_json_dict(), default=str) == before


@pytest.mark.browser
def test_a_browser_shows_the_page_and_asks_nobody_for_anything(page: str, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: install Debian's package chromium")
    file, log = tmp_path / "index.html", tmp_path / "net.json"
    file.write_text(page)
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}",
        "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "Data of pets" in shown
    asked = set(re.findall(r'"url":"(https?:[^"]*)"', log.read_text()))
    assert not [url for url in asked if "example.org" in url or "cdn" in url or "bootstrap" in url], asked
