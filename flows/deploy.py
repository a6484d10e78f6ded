"""Put every scenario on Prefect's deployments page: `python -m flows.deploy`, with PREFECT_API_URL set."""

from __future__ import annotations

from typing import Any

from evergreen.scenario import Scenario
from evergreen.workspace import Workspace


def main() -> None:
    from prefect import Flow, get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    from flows.servers import WORK_POOL

    workspace = Workspace.find()
    with get_client(sync_client=True) as client:
        client.create_work_pool(
            WorkPoolCreate(name=WORK_POOL, type="process", description="runs on this machine's processors"), overwrite=True
        )
    for path in sorted(workspace.scenarios.glob("*.yaml")):
        scenario = Scenario.parse(path)
        training: Flow[Any, Any] = Flow.from_source(source=workspace.root, entrypoint="flows/training.py:training")  # type: ignore[assignment]
        training.deploy(
            name=scenario.name,
            work_pool_name=WORK_POOL,
            parameters={"scenario": scenario.name},
            description=scenario.description,
            tags=["training", scenario.kind],
            concurrency_limit=1,
            print_next_steps=False,
            build=False,
            push=False,
        )


if __name__ == "__main__":
    main()
