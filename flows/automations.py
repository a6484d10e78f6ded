"""Prefect automations: mark dead runs as crashed, and send notifications of failures, promotions and drift.

`create_automations` registers them on the server by name, so that repeating it changes nothing. The trigger that starts a
retraining after drift is part of each retraining deployment (`flows.deploy`). The addresses for notifications come from the
environment, and Prefect stores them as secret blocks:

EVERGREEN_WEBHOOK_URL   receives each message as JSON: text, event, resource, payload (Slack, Teams and Mattermost show `text`)
EVERGREEN_EMAIL_URL     an Apprise address: mailtos://USER:PASSWORD@SMTP.EXAMPLE.ORG?to=ME@EXAMPLE.ORG
"""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

WEBHOOK, EMAIL = "EVERGREEN_WEBHOOK_URL", "EVERGREEN_EMAIL_URL"
BLOCKS = {WEBHOOK: "evergreen-webhook", EMAIL: "evergreen-email"}
Labels = dict[str, str | list[str]]
SILENCE_SECONDS = 75  # two and a half heartbeats: including the server's polling, a dead run is marked within two minutes
# The names of the states in which a run has no process: Prefect's, and the project's own.
AT_REST = (
    *("Completed", "Failed", "Crashed", "Cancelled", "TimedOut", "Paused", "Suspended"),
    *("Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot", "Unchanged", "Nothing to do", "Waits"),
)
WATCHED = "evergreen.watched"  # the event that makes the automation check a run again
OURS: Labels = {"prefect.resource.role": "flow", "prefect.resource.name": ["training", "retraining"]}
RUNS: Labels = {"prefect.resource.id": "prefect.flow-run.*"}
SCENARIOS: Labels = {"prefect.resource.id": "evergreen.scenario.*"}
MESSAGE = "{{ event.resource.name }}: {{ event.payload.message }}"
# The notifications: events, resources, flows, and the sentence (a Jinja template).
MESSAGES: dict[str, tuple[set[str], Labels, Labels, str]] = {
    "failure": (
        {"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"},
        RUNS,
        OURS,
        "{{ event.resource.name }}: {{ event.resource['prefect.state-name'] }}. {{ event.resource['prefect.state-message'] }}",
    ),
    "promotion": ({"evergreen.promotion"}, SCENARIOS, {}, MESSAGE),
    "drift": ({"evergreen.drift"}, SCENARIOS, {}, MESSAGE),
}


def create_automations(client: SyncPrefectClient) -> list[str]:
    """Create missing automations, update existing ones, and remove notifications if no address is configured any more.

    Returns:
        Messages for the user, as sentences.
    """
    _put(client, silent_runs_have_crashed())
    watch_unfinished_runs(client)
    blocks = _blocks()
    for about in MESSAGES:
        if blocks:
            _put(client, message(about, blocks))
        else:
            _remove(client, _name(about))
    if blocks:
        return [f"Failures, promotions and drift are sent to what {' and '.join(blocks)} name."]
    return [f"No notifications: set {WEBHOOK} or {EMAIL} to be notified of failures, promotions and drift."]


def silent_runs_have_crashed() -> AutomationCore:
    """The automation that marks silent runs as crashed, which frees their slots in the queue.

    A run sends a heartbeat every 30 s. A run has died with its worker if it sends nothing for `SILENCE_SECONDS`, or if a worker
    took it but did not start it, or did not end it after a cancellation.

    The state is not forced, so that Prefect's server refuses it if the run has ended in the meantime, however late or out of
    order the events arrive. Transitional states such as Submitting do not count as a sign of life: no further event has to
    follow them.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    return AutomationCore(
        name="evergreen: a silent run has crashed",
        description="Marks a run whose process has died, with its worker or without, as crashed, and frees its slot.",
        trigger=EventTrigger(
            after={f"prefect.flow-run.{what}" for what in ("heartbeat", "Pending", "Running", "Cancelling")} | {WATCHED},
            expect={f"prefect.flow-run.{what}" for what in ("heartbeat", *AT_REST)},
            match=ResourceSpecification(RUNS),
            match_related=ResourceSpecification(OURS),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message="Nothing was heard of this run any more: its process has died.",
                force=False,
            )
        ],
    )


def watch_unfinished_runs(client: SyncPrefectClient) -> None:
    """Make the automation above check every run that the server considers unfinished: the server may have died together with
    its worker, and while it is down it loses track of what it was waiting for."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import StateType
    from prefect.events import emit_event

    unfinished = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state={"type": {"any_": unfinished}})):  # type: ignore[arg-type]
        flow = client.read_flow(run.flow_id)
        emit_event(
            WATCHED,
            resource={"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name},
            related=[
                {
                    "prefect.resource.id": f"prefect.flow.{flow.id}",
                    "prefect.resource.role": "flow",
                    "prefect.resource.name": flow.name,
                }
            ],
        )


def message(about: str, blocks: dict[str, UUID]) -> AutomationCore:
    """The automation that sends one of `MESSAGES` through each of the blocks."""
    from prefect.events.actions import CallWebhook, SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    events, resources, flows, text = MESSAGES[about]
    actions: list[Any] = []
    if WEBHOOK in blocks:
        actions.append(CallWebhook(block_document_id=blocks[WEBHOOK], payload=_as_json(text)))
    if EMAIL in blocks:
        actions.append(SendNotification(block_document_id=blocks[EMAIL], subject=f"Evergreen: {about}", body=text))
    return AutomationCore(
        name=_name(about),
        description=f"Sends a message on every {about}.",
        trigger=EventTrigger(
            expect=events,
            match=ResourceSpecification(resources),
            match_related=ResourceSpecification(flows),
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=actions,
    )


def _as_json(text: str) -> str:
    """A Jinja template for a JSON object whose `text` is the rendered template `text`."""
    inner = "{% set text %}" + text + "{% endset %}"
    fields = '{"text": text, "event": event.event, "resource": event.resource.id, "payload": event.payload}'
    return inner + "{{ " + fields + " | tojson }}"


def _blocks() -> dict[str, UUID]:
    """Create the blocks for the addresses in the environment, and delete those of addresses that are no longer set."""
    from prefect.blocks.core import Block
    from prefect.blocks.notifications import SlackWebhook
    from prefect.blocks.webhook import Webhook
    from pydantic import SecretStr

    found: dict[str, UUID] = {}
    # Prefect's Slack block passes every address that is not Slack's to Apprise, which sends e-mail.
    kinds: dict[str, type[Block]] = {WEBHOOK: Webhook, EMAIL: SlackWebhook}
    for variable, kind in kinds.items():
        address = os.environ.get(variable)
        if address:
            found[variable] = kind(url=SecretStr(address)).save(BLOCKS[variable], overwrite=True)  # type: ignore[assignment]
        else:
            _forget(f"{kind.get_block_type_slug()}/{BLOCKS[variable]}")
    return found


def _forget(block: str) -> None:
    from prefect.blocks.core import Block

    with contextlib.suppress(ValueError):  # it does not exist
        Block.delete(block)


def _put(client: SyncPrefectClient, declared: AutomationCore) -> None:
    """Create or update the automation; one that was disabled on Prefect's page stays disabled."""
    there = client.read_automations_by_name(declared.name)
    if not there:
        client.create_automation(declared)
        return
    # An update sends only explicitly set fields, and must not include an owner.
    whole = declared.model_dump(exclude={"owner_resource"}) | {"enabled": there[0].enabled}
    client.update_automation(there[0].id, type(declared).model_validate(whole))


def _remove(client: SyncPrefectClient, name: str) -> None:
    for automation in client.read_automations_by_name(name):
        client.delete_automation(automation.id)


def _name(about: str) -> str:
    return f"evergreen: tell of {about}"
