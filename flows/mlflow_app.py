"""MLflow's pages, changed so that they open on model training. MLflow's own start page shows traces of language models, and
opens an assistant.

`mlflow server --app-name evergreen` finds `app` by the entry point in pyproject.toml.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

APP_NAME = "evergreen"
EXPERIMENTS = "#/experiments?workflowType=machine_learning"
# Defaults for the settings that MLflow's page keeps in the browser, unless the user has chosen otherwise there. The keys are
# those of MLflow 3.17.
REMEMBERED = {"mlflow.workflowType_v1": "machine_learning", "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True}
SCRIPT = f"""<script>
for (const [key, value] of Object.entries({json.dumps(REMEMBERED)}))
  if (localStorage.getItem(key) === null) localStorage.setItem(key, JSON.stringify(value));
if (["", "#", "#/"].includes(location.hash)) location.replace({json.dumps(EXPERIMENTS)});
</script>"""


def app() -> Any:
    """MLflow's own application, with `SCRIPT` added to its page."""
    from mlflow.server import app as pages
    from mlflow.server.fastapi_app import app as application
    from starlette.requests import Request
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    html = (Path(str(pages.static_folder)) / "index.html").read_text(encoding="utf-8")

    def page(_: Request) -> HTMLResponse:
        return HTMLResponse(html.replace("<head>", f"<head>{SCRIPT}", 1))

    application.router.routes.insert(0, Route("/", page))
    return application
