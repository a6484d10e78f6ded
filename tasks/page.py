"""What a stage or a flow shows on Prefect's page: one Markdown artifact, and its pictures as image artifacts.

Prefect's own table artifacts truncate long cells and wide tables, and show numbers unformatted; its Markdown shows tables in
full, with links. Text that comes from data (labels, file names) is untrusted: `plain` escapes it, so that it is not interpreted
as markup.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from evergreen import figures
from evergreen.environment import pages_url, prefect_answers
from evergreen.workspace import Workspace, replace_file

log = logging.getLogger("evergreen")

Cell = str | int | float | bool | None
Rows = Sequence[Mapping[str, Cell]]
MOST_ROWS = 200  # of a table: Prefect's page draws all of them at once
MARKUP = re.compile(r"[\\`*_\[\]<>|~&#!$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)


@dataclass(frozen=True)
class Page:
    """The content of a page.

    Attributes:
        texts: Markdown by heading ("" for none); text from the data must be escaped with `plain`.
        tables: rows by heading; each cell is a number or plain text, not Markdown. Columns of numbers are right-aligned.
        links: URLs by link text, or files below `outputs/`, which are linked to the page server.
        pictures: files below `outputs/` by title.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, Rows] = field(default_factory=dict)
    links: Mapping[str, str | Path] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)

    def markdown(self, workspace: Workspace, server: str | None) -> str:
        """The page as Markdown.

        Args:
            server: URL of the page server; without one, files are shown as paths, since links to them would be dead.
        """
        parts = [_under(heading, text) for heading, text in self.texts.items()]
        parts += [_under(heading, table(rows)) for heading, rows in self.tables.items() if rows]
        if self.links:
            parts.append(_under("Where to look", links(workspace, server, self.links)))
        return "\n\n".join(parts)


def publish(workspace: Workspace, name: str, title: str, sentence: str, draw: Callable[[], Page]) -> None:
    """Publish a page to Prefect, within a flow or task. A failure only causes a warning, as it must not undo finished work.

    Args:
        name: the scenario's name.
        title: a word or two; the artifact's key is `NAME-TITLE`.
        sentence: shown at the top of the page.
        draw: makes the page; not called if no Prefect server answers.
    """
    from prefect.artifacts import create_image_artifact, create_markdown_artifact

    try:
        if not prefect_answers():
            return
        page, server = draw(), pages_url()
        create_markdown_artifact(page.markdown(workspace, server), key=key(name, title), description=plain(sentence))
        for caption, picture in page.pictures.items():
            if server:
                kept = kept_picture(workspace, name, picture)
                create_image_artifact(address(workspace, server, kept), key=key(name, caption), description=plain(caption))
    except Exception as error:  # noqa: BLE001 (the work is done, even if it can't be shown)
        log.warning("%s of %s could not be shown on Prefect's page (%s).", title.capitalize(), name, error)


def kept_picture(workspace: Workspace, name: str, picture: Path) -> Path:
    """Copy a picture to a file named by its content hash, so that a run's page keeps showing its own picture after later
    runs."""
    content = picture.read_bytes()
    copy = workspace.outputs(name) / "pictures" / f"{hashlib.sha256(content).hexdigest()[:16]}{picture.suffix}"
    if not copy.exists():
        replace_file(copy, content)
    return copy


def address(workspace: Workspace, server: str, file: Path) -> str:
    """The URL of a file or folder below `outputs/` on the page server."""
    return f"{server}/{quote(file.relative_to(workspace.outputs('')).as_posix())}" + ("/" if file.is_dir() else "")


def key(name: str, title: str) -> str:
    """An artifact's key: Prefect allows lower-case letters, digits and hyphens."""
    return f"{name}-{'-'.join(re.findall('[a-z0-9]+', title.lower()))}"


def plain(text: str) -> str:
    """Escape text so that Markdown shows it unchanged, in one line."""
    return MARKUP.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))


def bullets(sentences: Iterable[str]) -> str:
    """Plain-text sentences as a Markdown list."""
    return "\n".join(f"- {plain(sentence)}" for sentence in sentences)


def links(workspace: Workspace, server: str | None, targets: Mapping[str, str | Path]) -> str:
    """A Markdown list of links; without a page server, files are shown as paths."""
    lines = []
    for text, target in targets.items():
        if isinstance(target, Path):
            if server is None:
                lines.append(f"- {plain(text)}: `{target.relative_to(workspace.root)}`")
                continue
            target = address(workspace, server, target)
        lines.append(f"- [{plain(text)}]({target})")
    return "\n".join(lines)


def table(rows: Rows) -> str:
    """Rows as a Markdown table, with the first row's keys as headings; columns of numbers are right-aligned."""
    columns = list(rows[0])
    right = [index > 0 and all(_is_number(row.get(column)) for row in rows) for index, column in enumerate(columns)]
    lines = [
        _row([plain(column) for column in columns]),
        _row(["---:" if one else "---" for one in right]),
        *(_row([_shown(row.get(column)) for column in columns]) for row in rows[:MOST_ROWS]),
    ]
    more = f"\n\n… and {figures.count(len(rows) - MOST_ROWS, 'row')} more." if len(rows) > MOST_ROWS else ""
    return "\n".join(lines) + more


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(cell: Cell) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return figures.count(cell)
    return plain(cell) if isinstance(cell, str) else figures.number(cell)


def _is_number(cell: Cell) -> bool:
    """True for a number, with or without a unit, or the word for an unknown one; not for a sentence that begins with a
    number."""
    if isinstance(cell, str) and len(cell) > 30:
        return False
    return not isinstance(cell, bool) and (not isinstance(cell, str) or bool(re.match(r"[-+±]?\d|unknown$|under |–?$", cell)))


def _under(heading: str, text: str) -> str:
    return f"### {plain(heading)}\n\n{text}" if heading else text
