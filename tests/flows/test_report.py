"""The report in a real browser: in light and dark, on a phone's width, with hostile names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evergreen.kinds.base.judge import Review
from evergreen.kinds.classify.mistakes import rendered
from evergreen.reporting.history import DataState, Quarantined, Thumbnail
from tests.evergreen.reporting.test_report import HOSTILE, WHEN, history, mistakes, page, version

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LUMINANCE = "(() => { const c = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number); return c[0] + c[1] + c[2] })()"


@pytest.mark.browser
def test_the_page_looks_right_with_no_network(tmp_path: Path) -> None:
    if not CHROMIUM:
        pytest.skip("no Chromium: install Debian's package chromium to see the page tested")
    from playwright.sync_api import sync_playwright

    state = DataState("a" * 32, (1, 2), WHEN, {HOSTILE: 3}, {HOSTILE: 3}, 0, 0, (Thumbnail(None, HOSTILE, HOSTILE),))
    versions = [version(number, 0.8 + number / 100, number / 100) for number in range(1, 11)]
    found = history(
        *versions,
        champion=10,
        data=(state,),
        quarantined=Quarantined({HOSTILE: 1}, ()),
        review=Review({}, rendered(mistakes(HOSTILE, "nut"))),
    )
    file = tmp_path / "report.html"
    file.write_text(page(found), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        said: list[str] = []
        asked: list[str] = []
        for scheme, width in (("light", 1200), ("dark", 360)):
            shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
            shown.on("console", lambda message: said.append(message.text))
            shown.on("request", lambda request: asked.append(request.url))
            shown.goto(file.as_uri())
            assert shown.locator(".answer").first.is_visible() and shown.locator("figure svg[role=img]").count() == 4
            assert shown.locator("svg").first.bounding_box()["height"] > 150  # type: ignore[index]
            assert shown.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
            assert shown.evaluate("typeof hacked") == "undefined"
            assert (shown.evaluate(LUMINANCE) > 600) == (scheme == "light")
        browser.close()
    assert said == [] and asked == [file.as_uri()] * 2
