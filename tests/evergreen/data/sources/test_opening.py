"""The source that a scenario names is found, or downloaded."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from evergreen.data.sources.archive import ArchiveSource
from evergreen.data.sources.folder import FolderSource
from evergreen.data.sources.idx import IdxSource
from evergreen.data.sources.opening import locate
from evergreen.errors import EvergreenError
from evergreen.kinds.classify.settings import ImageScenario
from evergreen.scenario.settings import Scenario
from evergreen.workspace import Workspace
from tests.support.sources import folder_of, tar_of


def public(url: str | None = "https://example.invalid/images.tar", sha256: str | None = None) -> ImageScenario:
    return ImageScenario.model_validate(
        {
            "name": "pets",
            "kind": "classify",
            "seed": 1,
            "collect": {"file": "images.tar", "url": url, "sha256": sha256, "download": {"private_addresses": True}},
            "validate": {"labels": ["cat", "dog"]},
            "preprocess": {"height": 8, "width": 8, "channels": 1},
            "train": {},
        }
    )


def own(path: str) -> ImageScenario:
    return public().model_copy(update={"collect": public().collect.model_copy(update={"file": None, "path": path})})


@pytest.fixture
def samples_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    monkeypatch.setenv("EVERGREEN_SAMPLES", str(folder))
    return folder


def test_a_public_file_is_taken_from_the_samples_folder(workspace: Workspace, samples_folder: Path) -> None:
    path = tar_of(samples_folder / "images.tar")
    assert locate(public(), workspace) == IdxSource(ArchiveSource(path))
    assert locate(public(sha256=hashlib.sha256(path.read_bytes()).hexdigest()), workspace) == IdxSource(ArchiveSource(path))


def test_an_earlier_download_is_used_again(workspace: Workspace, samples_folder: Path) -> None:
    downloads = workspace.private / "downloads"
    downloads.mkdir(parents=True)
    path = tar_of(downloads / "images.tar")
    assert locate(public(), workspace) == IdxSource(ArchiveSource(path))


def test_a_file_that_is_nowhere_says_what_to_fetch_and_where_to_put_it(workspace: Workspace, samples_folder: Path) -> None:
    for refused in (locate_error(public(), workspace), locate_error(public(), workspace, download=False)):
        assert "https://example.invalid/images.tar" in refused
        assert str(samples_folder / "images.tar") in refused and "EVERGREEN_SAMPLES" in refused
    assert not list((workspace.private / "downloads").iterdir())


def locate_error(scenario: Scenario, workspace: Workspace, **options: bool) -> str:
    with pytest.raises(EvergreenError) as refused:
        locate(scenario, workspace, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_file_without_an_address_says_where_to_put_it(workspace: Workspace, samples_folder: Path) -> None:
    assert str(samples_folder / "images.tar") in locate_error(public(url=None), workspace)


def test_a_file_with_the_wrong_checksum_is_not_used(workspace: Workspace, samples_folder: Path) -> None:
    path = tar_of(samples_folder / "images.tar")
    refused = locate_error(public(sha256="0" * 64), workspace)
    assert f"{path} had the wrong checksum" in refused and "https://example.invalid" in refused


def test_your_own_path_is_relative_to_the_checkout_or_absolute(workspace: Workspace) -> None:
    folder = folder_of(workspace.root / "mine")
    assert locate(own("mine"), workspace) == IdxSource(FolderSource(folder)) == locate(own(str(folder)), workspace)
    assert "collect.path" in locate_error(own("yours"), workspace)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on loopback: its address and the folder that it serves."""
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    folder = tmp_path / "web"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_a_download_is_kept_once_its_checksum_is_right(
    workspace: Workspace, samples_folder: Path, web: tuple[str, Path]
) -> None:
    address, folder = web
    content = tar_of(folder / "images.tar").read_bytes()
    right = hashlib.sha256(content).hexdigest()
    refused = locate_error(public(f"{address}/images.tar", "0" * 64), workspace)
    assert "gave something else" in refused and right in refused
    assert "not found" in locate_error(public(f"{address}/gone.tar", right), workspace).lower()
    assert not list((workspace.private / "downloads").iterdir())
    source = locate(public(f"{address}/images.tar", right), workspace)
    assert Path(source.describe()).read_bytes() == content
    (folder / "images.tar").unlink()
    assert locate(public(f"{address}/images.tar", right), workspace) == source


def test_a_source_is_opened_as_the_scenario_says(workspace: Workspace) -> None:
    folder = folder_of(workspace.root / "mine")
    settings = own("mine").collect.model_copy(update={"encoding": "gbk", "follow_links": True})
    assert locate(own("mine").model_copy(update={"collect": settings}), workspace) == IdxSource(
        FolderSource(folder, "gbk", True)
    )
    builtin = settings.model_copy(update={"path": None, "builtin": "digits"})
    assert locate(own("mine").model_copy(update={"collect": builtin}), workspace).describe() == "digits"


def test_a_public_folder_has_the_checksum_of_what_sha256sum_prints_of_its_files(
    workspace: Workspace, samples_folder: Path
) -> None:
    folder = folder_of(samples_folder / "images.tar", {"b.gz": b"two", "a.gz": b"one", ".hidden": b"not counted"})
    listed = subprocess.run(["sha256sum", "a.gz", "b.gz"], cwd=folder, capture_output=True, check=True).stdout
    checksum = hashlib.sha256(listed).hexdigest()
    assert locate(public(None, checksum), workspace) == IdxSource(FolderSource(folder))
    (folder / "a.gz").write_bytes(b"ONE")
    assert "had the wrong checksum" in locate_error(public(None, checksum), workspace)
