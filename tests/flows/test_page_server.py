"""The page server of `evergreen up` shows what is meant for people, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evergreen.reporting.data_page import script_policy
from evergreen.workspace import Workspace
from flows.pages import HEADERS, application, find

pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient`")

PNG = b"\x89PNG\r\n\x1a\n"
SHOWN = {
    "report.html": b"<h1>all</h1>",
    "quickstart/report.html": b"<h1>quickstart</h1>",
    "quickstart/look.html": b"<h1>data</h1>",
    "quickstart/data-docs/index.html": b"<h1>Data Docs</h1>",
    "quickstart/evaluation/confusion.png": PNG,
    "quickstart/evaluation/per_class.json": b"[]",
    "quickstart/tuning/trials.csv": b"trial\n0\n",
    "quickstart/pictures/0123456789abcdef.png": PNG,
}
HIDDEN = (
    "quickstart/model/model.onnx",
    "quickstart/splits/train-images.npy",
    "quickstart/splits/labels.json",
    "quickstart/record/train.json",
    "quickstart/evaluation/predictions.parquet",
    "quickstart/evaluation/.hidden.png",
    "quickstart/metrics.json",
)


@pytest.fixture
def shown(workspace: Workspace) -> Workspace:
    """A checkout in which everything has run."""
    for name, content in (SHOWN | dict.fromkeys(HIDDEN, b"secret")).items():
        path = workspace.outputs(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (workspace.root / "data").mkdir()
    (workspace.root / "data" / "report.html").write_bytes(b"secret")
    return workspace


@pytest.fixture
def client(shown: Workspace) -> Any:
    from starlette.testclient import TestClient

    return TestClient(application(shown, prefect_url="http://127.0.0.1:4200"), base_url="http://127.0.0.1:4201")


def test_what_people_are_shown_is_served_as_what_it_is_and_never_kept_by_the_browser(client: Any) -> None:
    for address, content in SHOWN.items():
        answer = client.get(f"/{address}")
        assert (answer.status_code, answer.content) == (200, content), address
        assert answer.headers["Cache-Control"] == "no-store"
    types = {name: client.get(f"/{name}").headers["Content-Type"].split(";")[0] for name in SHOWN}
    assert types["report.html"] == "text/html" and types["quickstart/evaluation/confusion.png"] == "image/png"
    assert types["quickstart/tuning/trials.csv"] == "text/csv"


def test_no_page_may_run_a_script_or_be_framed(client: Any) -> None:
    for address in ("/", "/quickstart/", "/quickstart/report.html", "/nowhere"):
        policy = client.get(address).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src" not in policy and "frame-ancestors 'none'" in policy


def test_the_page_of_a_data_set_may_run_its_own_script_alone(client: Any) -> None:
    policy = client.get("/quickstart/look.html").headers["Content-Security-Policy"]
    assert f"script-src {script_policy()}" in policy and "unsafe-inline'; img" in policy and "script-src 'unsafe" not in policy
    assert "/quickstart/look.html" in client.get("/quickstart/").text


@pytest.mark.parametrize("address", HIDDEN)
def test_models_data_and_records_are_not_served(client: Any, address: str) -> None:
    assert client.get(f"/{address}").status_code == 404


@pytest.mark.parametrize(
    "address",
    [
        "../data/report.html",
        "quickstart/../../data/report.html",
        "quickstart/data-docs/../../../data/report.html",
        "quickstart/evaluation/%2e%2e/%2e%2e/%2e%2e/data/report.html",
        "quickstart/evaluation/..%2f..%2f..%2fdata%2freport.html",
        "/etc/hostname",
        "quickstart/report.html%00.png",
        "Quickstart/report.html",
        "quickstart//report.html/",
    ],
)
def test_no_address_leads_out_of_what_is_shown(client: Any, shown: Workspace, address: str) -> None:
    assert b"secret" not in client.get(f"/{address}", follow_redirects=True).content
    assert find(shown.outputs(""), address) in (None, shown.outputs("quickstart") / "report.html")


@pytest.mark.parametrize("link", ["quickstart/evaluation/link.png", "quickstart/tuning/report.html", "elsewhere"])
def test_symbolic_links_are_not_followed(client: Any, shown: Workspace, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    (outside / "data-docs").mkdir(parents=True)
    for name in ("link.png", "report.html", "data-docs/index.html"):
        (outside / name).write_bytes(b"secret")
    target = outside if link == "elsewhere" else outside / Path(link).name
    (shown.outputs("") / link).symlink_to(target)
    for address in (link, f"{link}/report.html", f"{link}/data-docs/index.html"):
        assert client.get(f"/{address}").status_code == 404


def test_outputs_may_lie_on_another_disk(client: Any, shown: Workspace, tmp_path: Path) -> None:
    (shown.root / "outputs").rename(tmp_path / "disk")
    (shown.root / "outputs").symlink_to(tmp_path / "disk")
    assert client.get("/quickstart/report.html").status_code == 200


def test_a_name_that_was_made_to_point_at_this_machine_gets_no_answer(client: Any) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"Host": "localhost:4201"}).status_code == 200


def test_nothing_can_be_sent_to_it(client: Any) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert client.request(method, "/quickstart/report.html").status_code == 405


def test_the_index_lists_each_scenario_with_its_pages_and_a_picture(client: Any) -> None:
    page = client.get("/").text
    for part in ('href="/report.html"', 'href="/quickstart/"', 'href="/quickstart/report.html"', 'href="/quickstart/data-docs/index.html"',
                 'src="/quickstart/evaluation/confusion.png"', "Handwritten digits", 'href="http://127.0.0.1:4200"'):  # fmt: skip
        assert part in page
    assert "cifar10" not in page  # it has nothing to show


def test_the_page_of_a_scenario_shows_its_pictures_and_links_the_rest(client: Any) -> None:
    page = client.get("/quickstart/").text
    assert '<img src="/quickstart/evaluation/confusion.png" alt="Confusion matrix"' in page
    for part in ('href="/quickstart/tuning/trials.csv"', "Quality by label", 'href="/quickstart/data-docs/index.html"'):
        assert part in page
    assert "0123456789abcdef" not in page and "secret" not in page  # copies that runs link, and what is hidden
    assert client.get("/quickstart", follow_redirects=True).text == page
    assert client.get("/nowhere/").status_code == 404
    assert client.get("/quickstart/data-docs/", follow_redirects=True).content == SHOWN["quickstart/data-docs/index.html"]


def test_a_checkout_in_which_nothing_has_run_says_how_to_begin(workspace: Workspace) -> None:
    from starlette.testclient import TestClient

    client = TestClient(application(workspace), base_url="http://127.0.0.1")
    assert "evergreen run" in client.get("/").text


def test_names_on_the_index_are_never_markup(shown: Workspace, client: Any) -> None:
    (shown.outputs("quickstart") / "evaluation" / "<b>&.png").write_bytes(PNG)
    page = client.get("/quickstart/").text
    assert "<b>" not in page and "&lt;b&gt;&amp;" in page
    assert client.get("/quickstart/evaluation/%3Cb%3E%26.png").content == PNG
    assert set(HEADERS.values()) <= set(client.get("/quickstart/").headers.values())
