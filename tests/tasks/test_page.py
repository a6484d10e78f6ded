"""What is shown on Prefect's page reads as it was meant, whatever the data say."""

from __future__ import annotations

from pathlib import Path

import pytest

from evergreen.workspace import Workspace
from tasks.page import MOST_ROWS, Page, address, bullets, kept_picture, key, plain, table

SERVER = "http://127.0.0.1:4201"


def test_a_table_shows_numbers_to_the_right_and_reads_its_cells_as_they_are() -> None:
    rows = [
        {"label": "a|b", "items": 1234, "share": "97.2 %", "kept": True},
        {"label": "*c*", "items": None, "share": "unknown", "kept": False},
    ]
    assert table(rows).splitlines() == [
        "| label | items | share | kept |",
        "| --- | ---: | ---: | --- |",
        r"| a\|b | 1,234 | 97.2 % | yes |",
        r"| \*c\* | unknown | unknown | no |",
    ]


def test_a_long_table_says_how_much_of_it_is_not_shown() -> None:
    shown = table([{"row": number} for number in range(MOST_ROWS + 7)])
    assert len(shown.splitlines()) == MOST_ROWS + 4 and shown.endswith("… and 7 rows more.")


@pytest.mark.parametrize(
    "name",
    [
        "<b>x</b>",
        "[x](http://e.org)",
        "a|b",
        "`x`",
        "$x$",
        "_x_ *y* ~z~",
        "# x",
        "\\",
        "&lt;",
        "![x](y)",
        "www.e.org",
        "a@e.org",
    ],
)
def test_names_that_strangers_wrote_are_shown_as_text(name: str) -> None:
    import html

    from markdown_it import MarkdownIt

    assert html.unescape(MarkdownIt("commonmark").enable("table").renderInline(plain(name))) == name
    assert "<" not in MarkdownIt("commonmark").renderInline(plain(name))


def test_what_spans_lines_stays_one_line() -> None:
    assert plain("a\nb\r\n  c") == "a b c" and bullets(["one", "two\nlines"]) == "- one\n- two lines"


def test_files_are_linked_where_they_are_served_and_shown_as_paths_elsewhere(workspace: Workspace) -> None:
    report = workspace.outputs("quickstart") / "report.html"
    page = Page(links={"The report": report, "MLflow": "http://127.0.0.1:5000/#/x"})
    assert f"[The report]({SERVER}/quickstart/report.html)" in page.markdown(workspace, SERVER)
    alone = page.markdown(workspace, None)
    assert "The report: `outputs/quickstart/report.html`" in alone and "file:" not in alone
    assert "[MLflow](http://127.0.0.1:5000/#/x)" in alone


def test_the_address_of_a_folder_is_that_of_its_index(workspace: Workspace) -> None:
    workspace.outputs("quickstart").mkdir(parents=True)
    assert address(workspace, SERVER, workspace.outputs("quickstart")) == f"{SERVER}/quickstart/"


def test_a_run_goes_on_showing_its_own_picture_when_a_later_one_has_drawn_another(workspace: Workspace, tmp_path: Path) -> None:
    picture = tmp_path / "confusion.png"
    picture.write_bytes(b"first")
    first = kept_picture(workspace, "quickstart", picture)
    picture.write_bytes(b"second")
    second = kept_picture(workspace, "quickstart", picture)
    assert (first.read_bytes(), second.read_bytes()) == (b"first", b"second")
    assert kept_picture(workspace, "quickstart", picture) == second and first.parent == second.parent


def test_keys_hold_what_prefect_allows() -> None:
    assert key("my-parts", "What came (new)") == "my-parts-what-came-new"


def test_a_page_is_its_texts_tables_and_links_under_their_headings(workspace: Workspace) -> None:
    page = Page(
        texts={"": "**Done.**", "Why": "- x"}, tables={"Items": [{"a": 1}], "None": []}, links={"here": "http://127.0.0.1/"}
    )
    assert page.markdown(workspace, None) == (
        "**Done.**\n\n### Why\n\n- x\n\n### Items\n\n| a |\n| --- |\n| 1 |\n\n### Where to look\n\n- [here](http://127.0.0.1/)"
    )
