"""Opens the source that a path or a scenario names."""

from __future__ import annotations

from pathlib import Path

from evergreen.data.sources.archive import ArchiveSource
from evergreen.data.sources.base import Source
from evergreen.data.sources.builtin import BUILTINS
from evergreen.data.sources.folder import FolderSource
from evergreen.data.sources.idx import IdxSource, refuse_single_file
from evergreen.data.sources.public_file import public_file
from evergreen.data.sources.remote import RemoteSource, remote_address
from evergreen.data.sources.sql import SqlSource
from evergreen.errors import WrongUse
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace


def open_source(path: Path, *, encoding: str | None = None, follow_links: bool = False) -> Source:
    """A folder, an archive or a store as a source, with the images of its IDX files, if it has such; nothing is read yet.

    Args:
        path: of the folder or archive, or the address of a folder in a store.
        encoding: of names that the source doesn't state to be UTF-8; None: the encoding that all names together suggest.
        follow_links: whether links that lead out of a folder are followed too. Those inside it always are.

    Raises:
        WrongUse: the path is a single IDX file.
    """
    if (address := remote_address(path)) is not None:
        return IdxSource(RemoteSource(address))
    refuse_single_file(path)
    files = FolderSource(path, encoding, follow_links) if path.is_dir() else ArchiveSource(path, encoding)
    return IdxSource(files)


def locate(scenario: Scenario, workspace: Workspace, *, download: bool = True) -> Source:
    """The scenario's source on this machine; a public file that is not here yet is downloaded.

    Args:
        download: whether a public file may be downloaded.

    Raises:
        WrongUse: the scenario's path does not exist.
        EvergreenError: the public file is not available; says what to fetch and where to put it.
    """
    settings = scenario.collect
    if settings.builtin is not None:
        return BUILTINS[settings.builtin]()
    if settings.sql is not None:
        return SqlSource(settings.sql)
    if settings.remote is not None:
        return IdxSource(RemoteSource(settings.remote))
    if settings.path is None:
        path = public_file(settings, workspace, download=download)
    else:
        path = workspace.root / Path(settings.path).expanduser()
        if not path.exists():
            raise WrongUse(
                f"the images of scenario {scenario.name} are not there", expected="a folder or an archive", received=str(path),
                fix=f"Correct collect.path in scenarios/{scenario.name}.yaml.",
            )  # fmt: skip
    return open_source(path, encoding=settings.encoding, follow_links=settings.follow_links)
