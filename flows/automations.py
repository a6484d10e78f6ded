"""What Prefect does by itself when something happens: it marks dead runs as crashed, and tells people what they asked to be told.

`create_automations` puts these on the server, by name, so that a second time changes nothing. That drift starts a retraining stands with
each retraining deployment (`flows.deploy`). Addresses come from the environment, and are kept by Prefect as secret blocks:

EVERGREEN_WEBHOOK_URL   gets each message as JSON: text, event, resource, payload (Slack, Teams and Mattermost show `text`)
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
SILENCE_SECONDS = 75  # two heartbeats and a half: with the server's own rounds, a dead run is marked within two minutes
# States in which a run has no process, by their names: those of Prefect, and the project's own.
AT_REST = (
    *("Completed", "Failed", "Crashed", "Cancelled", "TimedOut", "Paused", "Suspended"),
    *("Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot", "Unchanged", "Nothing to do", "Waits"),
)
WATCHED = "evergreen.watched"  # the event by which a run is looked at again
OURS: Labels = {"prefect.resource.role": "flow", "prefect.resource.name": ["training", "retraining"]}
RUNS: Labels = {"prefect.resource.id": "prefect.flow-run.*"}
SCENARIOS: Labels = {"prefect.resource.id": "evergreen.scenario.*"}
TOLD = "{{ event.resource.name }}: {{ event.payload.message }}"
# What people are told of: the events, of which resources, of which flows, and the sentence (Jinja).
MESSAGES: dict[str, tuple[set[str], Labels, Labels, str]] = {
    "failure": (
        {"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"},
        RUNS,
        OURS,
        "{{ event.resource.name }}: {{ event.resource['prefect.state-name'] }}. {{ event.resource['prefect.state-message'] }}",
    ),
    "promotion": ({"evergreen.promotion"}, SCENARIOS, {}, TOLD),
    "drift": ({"evergreen.drift"}, SCENARIOS, {}, TOLD),
}


def create_automations(client: SyncPrefectClient) -> list[str]:
    """Create what is missing, bring up to date what is there, remove what nobody has given an address for any more.

    Returns:
        What people should know, in sentences.
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
        return [f"Failures, promotions and drift are told to what {' and '.join(blocks)} name."]
    return [f"No notifications: set {WEBHOOK} or {EMAIL} to be told of failures, promotions and drift."]


def silent_runs_have_crashed() -> AutomationCore:
    """A run says every 30 s that it lives. One that has said nothing for `SILENCE_SECONDS`, or that a worker has taken and not
    started, or not ended after a cancellation, has died with its worker; as crashed it frees its place in the queue.

    The state is not forced: Prefect's server refuses it where the run has ended meanwhile, however late or out of order the events
    arrive. States on the way, such as Submitting, are no sign of life: nothing would have to follow them.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    return AutomationCore(
        name="evergreen: a silent run has crashed",
        description="Marks a run whose process has died, with its worker or without, as crashed, and frees its place.",
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
    """Let the automation above look at every run that the server takes for unfinished: the server may have died with its worker,
    and what it was waiting for is forgotten while it is down."""
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
    """Tell people of one of `MESSAGES`, by each of the blocks."""
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
    """A Jinja template of a JSON object whose `text` is what the template `text` gives."""
    inner = "{% set text %}" + text + "{% endset %}"
    fields = '{"text": text, "event": event.event, "resource": event.resource.id, "payload": event.payload}'
    return inner + "{{ " + fields + " | tojson }}"


def _blocks() -> dict[str, UUID]:
    """The blocks for the addresses that the environment names; what is left of those that it no longer names is removed."""
    from prefect.blocks.core import Block
    from prefect.blocks.notifications import SlackWebhook
    from prefect.blocks.webhook import Webhook
    from pydantic import SecretStr

    found: dict[str, UUID] = {}
    # Prefect's block for Slack hands every address that is not Slack's to Apprise, which sends e-mail.
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

    with contextlib.suppress(ValueError):  # there is none
        Block.delete(block)


def _put(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    """Create the automation, or bring it up to date; one that was switched off on Prefect's page stays so."""
    there = client.read_automations_by_name(wanted.name)
    if not there:
        client.create_automation(wanted)
        return
    # An update sends only what was set by hand, and may not name an owner.
    whole = wanted.model_dump(exclude={"owner_resource"}) | {"enabled": there[0].enabled}
    client.update_automation(there[0].id, type(wanted).model_validate(whole))


def _remove(client: SyncPrefectClient, name: str) -> None:
    for automation in client.read_automations_by_name(name):
        client.delete_automation(automation.id)


def _name(about: str) -> str:
    return f"evergreen: tell of {about}"
