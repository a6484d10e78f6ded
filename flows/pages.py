"""The page server of `evergreen up`: serves the reports and pictures that the stages write, on loopback.

Browsers don't open `file:///` links on an http page such as Prefect's, so the files that the project links there are served
over http. The URL path is the file's path below `outputs/`: `http://127.0.0.1:4201/quickstart/report.html`. Only what is meant
for people is served (`SHOWN`), never data, models or records; nothing is cached, and no page can run a script but the one that
shows the pictures of a map.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from evergreen.errors import WrongUse
from evergreen.kinds.base.kind import kind_of
from evergreen.reporting.data_page import script_policy
from evergreen.scenario.loading import load_scenario
from evergreen.scenario.settings import NAME_PATTERN
from evergreen.workspace import DATA_PAGE, Workspace

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

REPORT = "report.html"
SHOWN = frozenset({REPORT, DATA_PAGE, "data-docs", "evaluation", "tuning", "drift", "pictures"})  # of outputs/NAME
TYPES = {
    ".html": "text/html; charset=utf-8", ".png": "image/png", ".svg": "image/svg+xml", ".csv": "text/csv; charset=utf-8",
    ".json": "application/json", ".txt": "text/plain; charset=utf-8",
}  # fmt: skip
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
TITLES = {
    "evaluation/learning_curve.png": "Learning curve",
    "drift/drift.png": "Drift of the new items",
    "tuning/front.png": "Tuning: quality against energy",
    "tuning/trials.csv": "Tuning: all trials",
}  # in addition to those of the scenario's kind


@dataclass(frozen=True)
class Link:
    """A link on a page."""

    title: str
    address: str


def find(outputs: Path, address: str) -> Path | None:
    """The file below `outputs` for a URL path; None if there is no such file, or it is not meant for people.

    Symbolic links are not followed, so that nothing outside can be reached.
    """
    parts = PurePosixPath(address).parts
    meant = parts == (REPORT,) or (len(parts) > 1 and re.fullmatch(NAME_PATTERN, parts[0]) and parts[1] in SHOWN)
    if not meant or any(part.startswith(".") for part in parts) or Path(parts[-1]).suffix not in TYPES:
        return None
    file = outputs.joinpath(*parts)
    return file if file.is_file() and file.resolve() == outputs.resolve().joinpath(*parts) else None


def application(workspace: Workspace, *, prefect_url: str = "", mlflow_url: str = "") -> Starlette:
    """The web application of the page server.

    Args:
        prefect_url, mlflow_url: the other servers' URLs, which all pages link to.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse, RedirectResponse, Response
    from starlette.routing import Route

    outputs = workspace.outputs("")
    others = [
        Link(name, url) for name, url in (("Prefect: runs, schedules", prefect_url), ("MLflow: models", mlflow_url)) if url
    ]

    def page(title: str, status: int = 200, **content: Any) -> Response:
        return HTMLResponse(_render(title=title, others=others, **content), status, HEADERS)

    def index(request: Request) -> Response:
        return page("Evergreen", scenarios=_scenarios(workspace), links=_existing(outputs, {REPORT: "Report on all scenarios"}))

    def scenario(request: Request) -> Response:
        name = request.path_params["name"]
        if not _is_scenario(outputs, name):
            return missing(request)
        return page(
            name, description=_description(workspace, name), links=_pages(workspace, name), pictures=_pictures(workspace, name)
        )

    def file(request: Request) -> Response:
        address = request.path_params["address"]
        found = find(outputs, address)
        if found is not None:
            return Response(found.read_bytes(), media_type=TYPES[found.suffix], headers=_headers(found))
        folder = address.rstrip("/")
        if find(outputs, f"{folder}/index.html"):
            return RedirectResponse(f"/{quote(folder)}/index.html", headers=HEADERS)
        if _is_scenario(outputs, folder):
            return RedirectResponse(f"/{folder}/", headers=HEADERS)
        return missing(request)

    def missing(request: Request) -> Response:
        return page("There is no such page", 404, links=[Link("All scenarios", "/")])

    return Starlette(
        routes=[Route("/", index), Route("/{name}/", scenario), Route("/{address:path}", file)],
        # Against DNS rebinding: a web site whose name resolves to this machine gets no answer.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False)],
    )


def _headers(file: Path) -> dict[str, str]:
    """The headers of a file: the page of a data set may run its own script."""
    if file.name != DATA_PAGE:
        return HEADERS
    policy = f"{HEADERS['Content-Security-Policy']}; script-src {script_policy()}"
    return HEADERS | {"Content-Security-Policy": policy}


def _scenarios(workspace: Workspace) -> list[dict[str, Any]]:
    """The index's content for each scenario that has pages."""
    outputs = workspace.outputs("")
    names = sorted(path.name for path in outputs.glob("*") if _is_scenario(outputs, path.name))
    found = [
        {
            "link": Link(name, f"/{name}/"),
            "description": _description(workspace, name),
            "pages": _pages(workspace, name),
            "picture": next(iter(_pictures(workspace, name)), None),
        }
        for name in names
    ]
    return [one for one in found if one["pages"] or one["picture"]]


def _is_scenario(outputs: Path, name: str) -> bool:
    return bool(re.fullmatch(NAME_PATTERN, name)) and (outputs / name).is_dir() and not (outputs / name).is_symlink()


def _description(workspace: Workspace, name: str) -> str:
    try:
        return load_scenario(workspace.scenarios, name).description
    except WrongUse:  # it was removed, or is being written
        return ""


def _pages(workspace: Workspace, name: str) -> list[Link]:
    outputs, titles = workspace.outputs(""), _titles(workspace, name)
    tables = [*_files(outputs, name, ".csv"), *_files(outputs, name, ".json")]
    return _existing(
        outputs,
        {
            f"{name}/{REPORT}": "Report: was retraining worth it?",
            f"{name}/{DATA_PAGE}": "The data: counts, samples, suspects, map",
            f"{name}/data-docs/index.html": "Data Docs: is the data fit to train on?",
            **{f"{name}/{path}": _title(titles, path) for path in tables},
        },
    )


def _pictures(workspace: Workspace, name: str) -> list[Link]:
    outputs, titles = workspace.outputs(""), _titles(workspace, name)
    paths = [
        path for path in (*_files(outputs, name, ".png"), *_files(outputs, name, ".svg")) if not path.startswith("pictures/")
    ]
    order = {path: index for index, path in enumerate(titles)}
    shown = {
        f"{name}/{path}": _title(titles, path) for path in sorted(paths, key=lambda path: (order.get(path, len(order)), path))
    }
    return _existing(outputs, shown)


def _files(outputs: Path, name: str, suffix: str) -> Iterable[str]:
    folder = outputs / name
    found = (
        path.relative_to(folder).as_posix() for shown in sorted(SHOWN) for path in sorted((folder / shown).glob(f"*{suffix}"))
    )
    return list(found)


def _titles(workspace: Workspace, name: str) -> dict[str, str]:
    """The titles of pictures and tables by path, in the order in which they are shown."""
    try:
        judge = kind_of(load_scenario(workspace.scenarios, name)).judge
    except WrongUse:  # it was removed, or is being written
        return TITLES
    return {f"evaluation/{file}": title for file, title in {**judge.pictures, **judge.tables}.items()} | TITLES


def _title(titles: Mapping[str, str], path: str) -> str:
    return titles.get(path) or PurePosixPath(path).stem.replace("_", " ").replace("-", " ").capitalize()


def _existing(outputs: Path, titles: dict[str, str]) -> list[Link]:
    return [Link(title, f"/{quote(address)}") for address, title in titles.items() if find(outputs, address)]


def _render(**content: Any) -> str:
    from jinja2 import Environment

    template = Path(__file__).with_name("pages.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template).render(**content)


def main() -> None:
    """The body of `python -m flows.pages PORT`, which `evergreen up` runs in a child process."""
    import uvicorn

    prefect, mlflow = os.environ.get("PREFECT_API_URL", "").removesuffix("/api"), os.environ.get("MLFLOW_TRACKING_URI", "")
    uvicorn.run(
        application(Workspace.find(), prefect_url=prefect, mlflow_url=mlflow),
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", server_header=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
