"""Data Docs on a single page that works offline.

Great Expectations renders its validation result. Its own page template loads styles, fonts and scripts from content-delivery
networks, so this module has its own.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult

STYLE = """
:root { color-scheme: light dark; --ink: #1c2a22; --soft: #5d6b63; --line: #dfe6e1; --back: #ffffff; --card: #f5f8f6;
        --good: #1c7c43; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4ebe6; --soft: #9aa8a0; --line: #34403a; --back: #141a17; --card: #1c2420; --good: #5fce8c; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2.2rem 1.5rem 4rem; background: var(--back); color: var(--ink);
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 .3rem; font-size: 1.8rem; line-height: 1.2; }
.verdict { border-left: .4rem solid var(--good); background: var(--card); border-radius: .4rem; padding: 1.1rem 1.4rem; }
.verdict.failed { border-color: var(--bad); }
.verdict p { margin: .2rem 0 0; color: var(--soft); }
.verdict strong { color: var(--good); }
.verdict.failed strong { color: var(--bad); }
.verdict ul { margin: .7rem 0 0; padding-left: 1.2rem; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.1rem 0 1.6rem; padding: 0; list-style: none; }
.facts li { background: var(--card); border-radius: .4rem; padding: .5rem .9rem; color: var(--soft); font-size: .85rem; }
.facts b { display: block; color: var(--ink); font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.alert { margin: 1.5rem 0 .4rem; }
h5 { margin: 0; font-size: 1.05rem; }
h6 { margin: .5rem 0 .2rem; font-size: .95rem; }
table { border-collapse: collapse; width: 100%; }
.ge-section > .row > div > table { table-layout: fixed; }
.ge-section > .row > div > table > thead th:first-child { width: 4.5rem; }
.ge-section > .row > div > table > thead th:last-child { width: 32%; }
th, td { text-align: left; vertical-align: top; padding: .45rem .6rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { color: var(--soft); font-size: .8rem; font-weight: 600; }
td table { margin-top: .5rem; width: auto; font-size: .85rem; }
td th { white-space: nowrap; }
i.text-success::before { content: "✓"; color: var(--good); font: bold 1.05rem sans-serif; }
i.text-danger::before { content: "✗"; color: var(--bad); font: bold 1.05rem sans-serif; }
i.text-warning::before { content: "!"; color: var(--bad); font: bold 1.05rem sans-serif; }
strong.text-danger { color: var(--bad); font-weight: 600; font-size: .9rem; }
strong.text-danger br { display: none; }
strong.text-danger { display: block; }
a[data-toggle] { display: none; }
.badge { background: var(--card); border: 1px solid var(--line); border-radius: .3rem; padding: 0 .35rem; font-size: .85em; }
footer { margin-top: 2.5rem; color: var(--soft); font-size: .85rem; }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="UTF-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title | e }}</title>
<style>{{ style }}</style>
</head>
<body>
<div class="verdict {{ '' if passed else 'failed' }}">
<h1>{{ title | e }}: <strong>{{ 'accepted' if passed else 'refused' }}</strong></h1>
<p>{{ sentence | e }}</p>
{% if failures %}<ul>{% for failure in failures %}<li>{{ failure | e }}</li>{% endfor %}</ul>{% endif %}
</div>
<ul class="facts">{% for name, value in facts.items() %}<li><b>{{ value | e }}</b>{{ name | e }}</li>{% endfor %}</ul>
{% for section in sections %}{% set section_loop = loop %}{% include 'section.j2' %}{% endfor %}
<footer>Data Docs of Great Expectations {{ ge_version | e }}, made to be read offline.</footer>
</body>
</html>
"""


def render(
    result: ExpectationSuiteValidationResult, *, title: str, sentence: str, failures: Iterable[str], facts: dict[str, str]
) -> str:
    """The page of one validation result, as self-contained HTML.

    Args:
        result: of a suite; its expectations' descriptions and values are treated as text, never as markup.
        title, sentence: the headline, and the sentence below it.
        failures: a description of each expectation that failed.
        facts: figures by name, shown large.
    """
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView
    from jinja2 import ChoiceLoader, DictLoader

    document = ValidationResultsPageRenderer().render(_as_text(result))
    # The first two sections describe the run and the suite, which the headline sums up.
    document.sections = [section for section in document.sections if section.section_name not in ("Overview", "Run Info")]
    view = DefaultJinjaPageView()
    view.env.loader = ChoiceLoader([DictLoader({"evergreen.j2": PAGE}), *filter(None, [view.env.loader])])
    page: str = view.render(
        document,
        template="evergreen.j2",
        title=title, sentence=sentence, failures=list(failures), facts=facts, passed=bool(result.success), style=STYLE,
    )  # fmt: skip
    return page


def _as_text(result: ExpectationSuiteValidationResult) -> ExpectationSuiteValidationResult:
    """A copy with escaped text (a label is a folder's name, which can be anything) and with Python's own number types (the
    renderer supports no others)."""
    import copy

    result = copy.deepcopy(result)
    for one in result.results:
        one.result, one.exception_info = _plain(one.result), _without_tracebacks(one.exception_info)
        if isinstance(one.result.get("observed_value"), list):
            one.result["observed_value"] = ", ".join(map(str, one.result["observed_value"]))
        if one.expectation_config is not None and one.expectation_config.description:
            one.expectation_config.description = html.escape(one.expectation_config.description)
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return html.escape(value) if isinstance(value, str) else value


def _without_tracebacks(value: Any) -> Any:
    """The value without tracebacks, which are of no use on the page; error messages stay, and the renderer escapes them."""
    if isinstance(value, dict):
        return {key: "" if key == "exception_traceback" else _without_tracebacks(item) for key, item in value.items()}
    return value
