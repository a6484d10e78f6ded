"""The public file of a scenario: found on this machine, or downloaded."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from evergreen.data.folder_names import is_hidden
from evergreen.errors import EvergreenError, Unreachable
from evergreen.scenario.settings import Collect
from evergreen.secrets import shown
from evergreen.workspace import Workspace


def public_file(settings: Collect, workspace: Workspace, *, download: bool) -> Path:
    """Where the file or the folder `settings.file` is on this machine.

    It is taken from the folder EVERGREEN_SAMPLES, else from `shared/data` beside the checkout, else from an earlier
    download, else from its address; wherever it comes from, its checksum must be right.

    Args:
        download: whether it may be downloaded if it is not on this machine.

    Raises:
        EvergreenError: it is not available; says what to fetch and where to put it.
    """
    assert settings.file is not None
    wrong = []
    for folder in _sample_folders(workspace):
        path = folder / settings.file
        if path.exists():
            if settings.sha256 is None or _checksum(path) == settings.sha256:
                return path
            wrong.append(str(path))
    return _download(settings, workspace, wrong, allowed=download)


def _sample_folders(workspace: Workspace) -> list[Path]:
    named = os.environ.get("EVERGREEN_SAMPLES")
    samples = Path(named) if named else workspace.root.parent / "shared" / "data"
    return [samples, workspace.private / "downloads"]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(path: Path) -> str:
    """sha256 (hex) of a file; of a folder, that of what `sha256sum *` prints in it."""
    if not path.is_dir():
        return _sha256(path)
    files = sorted(file for file in path.iterdir() if file.is_file() and not is_hidden(file.name))
    return hashlib.sha256("".join(f"{_sha256(file)}  {file.name}\n" for file in files).encode()).hexdigest()


def _download(settings: Collect, workspace: Workspace, wrong: list[str], *, allowed: bool) -> Path:
    """Fetch the file into `.evergreen/downloads`; it takes its name there once its checksum is right."""
    from evergreen.data.sources.web import download

    assert settings.file is not None
    folder = _sample_folders(workspace)[0]
    address = shown(settings.url) if settings.url else settings.file
    remedy = f"Fetch {address} yourself, and put it at {folder / settings.file} (or set EVERGREEN_SAMPLES)."
    if wrong:
        remedy = f"{' and '.join(wrong)} had the wrong checksum. {remedy}"
    if settings.url is None or not allowed:
        raise EvergreenError(f"{settings.file} is not on this machine", fix=remedy)
    target = workspace.private / "downloads" / settings.file
    whole = target.with_name(f".{target.name}.whole")
    try:
        with workspace.lock(f"download-{hashlib.sha256(settings.file.encode()).hexdigest()[:16]}"):
            try:
                digest = download(settings.url, whole, settings.download)
            except Unreachable as error:
                raise Unreachable(error.happened, fix=f"{error.fix} Or: {remedy}") from None
            if settings.sha256 is not None and digest != settings.sha256:
                raise EvergreenError(
                    f"{address} gave something else", expected=f"sha256 {settings.sha256}", received=digest, fix=remedy
                )
            os.replace(whole, target)
    except OSError as error:
        raise EvergreenError(f"{settings.file} could not be fetched from {address}: {error}", fix=remedy) from None
    finally:
        whole.unlink(missing_ok=True)
    return target
