"""The `evergreen` command line. The commands start flows or servers, inspect or change the checkout, and print the result.

Results go to standard output (as a table, or with --json as one JSON object), everything else to standard error.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import typer

from evergreen import progress
from evergreen.environment import configure, in_utf8, pin
from evergreen.errors import EvergreenError, NotPromoted, WrongUse
from evergreen.stopping import STOPPED, stop_requested, supervise
from evergreen.workspace import Workspace
from flows.terminal import Messages, wrapped

SERVERS_GRACE_SECONDS = 40.0
FIRST, FRESH, MODELS, LOOK, SERVERS = "Begin here", "Keep it fresh", "Models", "See what is going on", "Servers"

app = typer.Typer(
    name="evergreen",
    help="Keeps image models fresh, and says what that costs.\n\n"
    "\b\nBegin here:\n"
    "  evergreen run                        the quickstart: digits, no network\n"
    "  evergreen new parts --images FOLDER  a scenario for your own images\n"
    "  evergreen run parts                  train, test and promote a model\n"
    "  evergreen up                         Prefect's and MLflow's pages\n\n"
    "`evergreen COMMAND --help` has examples of each command.",
    epilog="Exit status: 0 done · 1 something failed · 2 wrong use · 3 data refused by validation · "
    "4 not promoted though --must-promote was asked · 130 stopped by Ctrl-C.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output; logs stay on standard error.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the tools' own logs.")]
Scenario_ = Annotated[str, typer.Argument(help="A scenario: the name of a file in scenarios/, without .yaml.")]


@app.callback(invoke_without_command=True)
def begin_here(  # noqa: D103 (the docstring would be the text of --help)
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version, and end.", is_eager=True)] = False,
) -> None:
    if version:
        from flows.overview import version as installed

        print(f"evergreen {installed()}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command(rich_help_panel=FIRST)
def run(
    scenario: Scenario_ = "quickstart",
    must_promote: Annotated[bool, typer.Option("--must-promote", help="End with status 4 if the champion stays.")] = False,
    estimate_only: Annotated[
        bool, typer.Option("--estimate", help="Run nothing; say what a whole run would take: time, energy, carbon, money.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Run every stage, even if nothing has changed.")] = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, max=10_000, help="Train for this number of epochs, in this run only.", show_default="as the scenario says"
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Collect, check and version a scenario's images; train, evaluate, register and promote a model.

    A second run with nothing changed does nothing, and says so. Uses the servers of `evergreen up` when they are up.

    \b
    Examples:
      evergreen run                       the shipped quickstart
      evergreen run parts --estimate      what it would take; runs nothing
      evergreen run parts --must-promote  fail where the champion stays

    """
    with results() as out:
        workspace, visible = _begin(debug)
        if estimate_only:
            from evergreen.planning.estimate import estimate
            from evergreen.scenario.loading import load_scenario
            from flows.tables import show_estimate
            from tasks.trial import count_items, trial

            expected = estimate(load_scenario(workspace.scenarios, scenario), workspace, trial, count=count_items)
            print(json.dumps({"scenario": scenario, **expected.to_dict()}), file=out) if as_json else show_estimate(
                expected, out
            )
            return
        from flows.stages import nothing_changed

        summary = None if force else nothing_changed(scenario, epochs)  # checked without starting a flow
        if summary is None:
            with progress.task("Starting Prefect", until_next=True):
                from flows.stoppable import start as start_flow
                from flows.training import training

                summary = start_flow(training, scenario, force, epochs)
        elif visible:
            from flows.links import run_links
            from flows.training import show_unchanged

            show_unchanged(summary)
            summary = replace(summary, links=run_links(scenario, summary.run_id))
        if as_json:
            print(json.dumps(summary.to_dict()), file=out)
        else:
            from flows.tables import show_summary

            show_summary(summary, workspace, out)
    if must_promote and not summary.promoted:
        raise NotPromoted(f"{scenario} was not promoted: {summary.reason}")


@app.command(rich_help_panel=FRESH)
def retrain(
    scenario: Scenario_,
    force: Annotated[
        bool, typer.Option("--force", help="Train now, even without a reason, and without waiting for a cleaner hour.")
    ] = False,
    start: Annotated[
        Literal["scenario", "champion", "scratch"],
        typer.Option(
            help="What training begins with: the champion (and from scratch only where the gate refuses that), scratch, or as the scenario says."
        ),
    ] = "scenario",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Take in what lies in a scenario's inbox, and train again where there is a reason.

    Put newly labelled images into inbox/SCENARIO/LABEL/, archives of such folders or a CSV of corrections (label, and id or
    source) into inbox/SCENARIO/. Reasons: enough new items, drift, worse quality on new items, the champion's age (section
    `retraining` of the scenario). The new model is promoted only if it is better by more than chance.

    \b
    Examples:
      cp -r monday/good monday/bad inbox/parts/
      evergreen retrain parts

    """
    with results() as out:
        workspace, _ = _begin(debug)
        from evergreen.scenario.loading import load_scenario

        load_scenario(workspace.scenarios, scenario)  # before Prefect starts
        with progress.task("Starting Prefect", until_next=True):
            from flows.retraining import retraining
            from flows.stoppable import start as start_flow

            state: Any = start_flow(retraining, scenario, force, start, return_state=True)
        summary = state.result()
        if as_json:
            print(json.dumps(summary.to_dict()), file=out)
        else:
            from flows.tables import show_retraining

            show_retraining(summary, workspace, out)


@app.command(rich_help_panel=FRESH)
def review(
    scenario: Scenario_,
    queue: Annotated[
        Literal["errors", "unsure", "mistakes", "inbox"],
        typer.Option(
            help="What is shown first: likely label errors, what the champion is least sure of, its mistakes on val and test, or "
            "the files in the inbox's folder unlabelled."
        ),
    ] = "errors",
    by: Annotated[
        str | None, typer.Option(help="Who decides; it is recorded with each correction.", show_default="your user name")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Of the page.", show_default="the first free one from 4202")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    debug: Debug = False,
) -> None:
    """Look through items one by one, and give them labels: a page on this machine, for the keyboard.

    Each item comes with what the champion suggests, its heat map and look-alikes. Corrections go into the inbox, and files of
    inbox/SCENARIO/unlabelled/ that get a label go into its folder; `evergreen retrain` takes them in. Every decision is saved
    at once and can be undone until then. Ctrl-C ends it; the same command goes on where you stopped.

    \b
    Examples:
      evergreen review parts
      evergreen review parts --queue inbox
      evergreen review parts --queue mistakes --by anna --no-open

    """
    _log(debug)
    workspace = Workspace.find()
    configure(workspace, verbose=debug)
    import getpass

    from evergreen.scenario.loading import load_scenario
    from flows.review import serve

    serve(
        workspace, load_scenario(workspace.scenarios, scenario), by=by or getpass.getuser(), queue=queue, port=port,
        open_it=open_it,
    )  # fmt: skip


@app.command(rich_help_panel=FRESH)
def tune(
    scenario: Scenario_,
    budget_wh: Annotated[
        float, typer.Option(help="Watt-hours for all trials together; the epoch in which they are spent is the last.", min=1e-9)
    ],
    trials: Annotated[int, typer.Option(min=1, help="Stop after this many finished trials.")] = 1000,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the winner into the scenario, if it is better by more than chance.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Try other settings of a scenario's training, and show quality against energy.

    Trials are compared on the validation split; those that are no good are ended early, and their energy counts too. A study
    that was ended or killed goes on when the same is asked again, with a larger budget if you like. Nothing is written into the
    scenario without --apply.

    \b
    Examples:
      evergreen tune parts --budget-wh 5
      evergreen tune parts --budget-wh 5 --apply

    """
    with results() as out:
        workspace, _ = _begin(debug)
        from evergreen.scenario.loading import load_scenario

        load_scenario(workspace.scenarios, scenario)  # before Prefect starts
        with progress.task("Starting Prefect", until_next=True):
            from flows.stoppable import start as start_flow
            from flows.tuning import tuning

            summary = start_flow(tuning, scenario, budget_wh, trials, apply)
        if as_json:
            print(json.dumps(summary.to_dict()), file=out)
        else:
            from flows.tables import show_tuning

            show_tuning(summary, workspace, out)


@app.command(rich_help_panel=FIRST)
def new(
    name: Annotated[str, typer.Argument(help="The scenario's name: lower-case letters, digits and hyphens.")],
    images: Annotated[
        Path,
        typer.Option(
            "--images", "--source", help="A folder, archive or address with one folder of images a label, or other items."
        ),
    ],
    kind: Annotated[
        str | None, typer.Option(help="The kind of scenario; without it, the first by name that the source fits.")
    ] = None,
    labels_at: Annotated[
        int | None, typer.Option(min=1, help="The level of the label folders, from 1 below the source.")
    ] = None,
    follow_links: Annotated[bool, typer.Option(help="Follow links that lead out of the folder.")] = False,
    private_addresses: Annotated[
        bool, typer.Option(help="An address may lead to a private network or to this machine.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Look at labelled images and write a scenario for them, saying what was chosen and why.

    \b
    Examples:
      evergreen new parts --images /path/to/images
      evergreen new parts --images images.tar.gz
      evergreen new parts --images https://example.org/images.zip
      evergreen new parts --images s3://bucket/images
    """
    with results() as out:
        workspace, _ = _begin(debug)
        from evergreen.proposal.propose import propose
        from evergreen.scenario.kinds import installed_kinds
        from flows.scenarios import add_scenario
        from flows.scenarios import ask as ask_at_terminal

        kinds = [kind] if kind else installed_kinds()
        ask = ask_at_terminal if sys.stdin.isatty() and sys.stderr.isatty() and not as_json else None
        proposal = propose(
            name, images, workspace, kinds, labels_at=labels_at, follow_links=follow_links, ask=ask, private_addresses=private_addresses
        )  # fmt: skip
        path = add_scenario(workspace, name, proposal.yaml)
        if as_json:
            print(
                json.dumps({"scenario": name, "file": str(path), "choices": proposal.reasons, "folders": proposal.tree}),
                file=out,
            )
        else:
            print("\n".join([images.name or str(images), *proposal.tree, ""]), file=out)
            for sentence in proposal.reasons:
                print(wrapped(f"• {sentence}", out), file=out)
            print(wrapped(f"\nWritten to {path}. Change what you like, then: evergreen run {name}", out), file=out)


@app.command(rich_help_panel=SERVERS)
def up(
    prefect_port: Annotated[int, typer.Option(min=1, max=65535)] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    pages_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the server of reports, Data Docs and pictures.")
    ] = 4201,
    debug: Debug = False,
) -> None:
    """Start Prefect's server, MLflow's server, a server of the reports and pictures, and a worker on this machine; Ctrl-C ends
    all of them."""
    _log(debug)
    workspace = Workspace.find()
    pin(workspace, verbose=debug)  # the environment must not name servers that are to be started
    from flows.servers import serve

    serve(workspace, prefect_port, mlflow_port, pages_port)


@app.command(rich_help_panel=SERVERS)
def deploy(as_json: Json = False, debug: Debug = False) -> None:
    """Write prefect.yaml from the scenarios, and deploy it to the Prefect server that is up, or that PREFECT_API_URL names.

    \b
    Examples:
      evergreen deploy
    """
    with results() as out:
        workspace, visible = _begin(debug)
        from flows.deploy import declare
        from flows.deploy import deploy as deploy_

        lines = deploy_(workspace) if visible else [*declare(workspace), "No Prefect server is up: nothing was deployed."]
        print(json.dumps({"messages": lines}) if as_json else "\n".join(lines), file=out)


@app.command(rich_help_panel=MODELS)
def promote(
    scenario: Scenario_,
    version: Annotated[int | None, typer.Option(min=1, help="A model version; without it, the challenger.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it the champion whatever the gate says.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask the gate whether a registered model beats the champion, and promote it if so.

    \b
    Examples:
      evergreen promote parts                      the challenger
      evergreen promote parts --version 3 --force  whatever the gate says
    """
    with results() as out:
        workspace, _ = _begin(debug)
        from evergreen.scenario.loading import load_scenario
        from tasks.promote import promote_version

        requested = "challenger" if version is None else str(version)
        promotion = promote_version(load_scenario(workspace.scenarios, scenario), workspace, requested, force=force)
        if promotion.changed:
            from flows.events import emit_promotion

            emit_promotion(scenario, promotion.model_version, promotion.reason)
        _say(out, as_json, promotion)


@app.command(rich_help_panel=MODELS)
def explain(
    scenario: Scenario_,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Files to explain the answers for.")],
    version: Annotated[
        str, typer.Option(help="A model version: its number, or champion, challenger or previous.")
    ] = "champion",
    label: Annotated[
        str | None, typer.Option(help="The label to explain.", show_default="the model's answer for each image")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the pictures.", show_default="outputs/SCENARIO/explained")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a model answers for images, and write a heat map of each: the parts on which the answer rests.

    Red parts speak for the label, blue ones against it: with the part covered, the label becomes less or more probable.

    \b
    Examples:
      evergreen explain parts photo.jpg
      evergreen explain parts *.png --version 3 --output maps
    """
    with results() as out:
        workspace, _ = _begin(debug)
        from flows.explain import explain as explain_
        from flows.explain import show_explained

        found = explain_(workspace, scenario, images, version=version, label=label, folder=output)
        if as_json:
            print(json.dumps({"scenario": scenario, "images": [one.to_dict() for one in found]}), file=out)
        else:
            show_explained(found, out)


@app.command(rich_help_panel=MODELS)
def rollback(scenario: Scenario_, as_json: Json = False, debug: Debug = False) -> None:
    """Give a scenario its previous champion back.

    \b
    Examples:
      evergreen rollback parts     the same command undoes it
    """
    with results() as out:
        workspace, _ = _begin(debug)
        from evergreen.registry.models import rollback as roll_back
        from evergreen.scenario.loading import load_scenario

        _say(out, as_json, roll_back(workspace, load_scenario(workspace.scenarios, scenario).name))


@app.command(rich_help_panel=MODELS)
def checkout(
    model: Annotated[
        str, typer.Argument(metavar="NAME@VERSION", help="A scenario and a model version, an alias or a data version.")
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Bring back the very data that a registered model was trained on, and what its stages wrote; other scenarios stay as they
    are.

    \b
    Examples:
      evergreen checkout parts@champion
      evergreen checkout parts@3
    """
    with results() as out:
        workspace, _ = _begin(debug)
        from flows.checkout import checkout_model

        name, _, requested = model.partition("@")
        if not requested:
            raise WrongUse("no model version is named", expected="NAME@VERSION", received=model, fix=f"Try {model}@champion.")
        _say(out, as_json, checkout_model(workspace, name, requested))


Ids = Annotated[list[str] | None, typer.Option("--id", metavar="SHA256", help="An item's id; may be repeated.")]
Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source", metavar="PATTERN", help="Items by their path in the source, such as 'cat/*.png'; may be repeated."
    ),
]
Groups = Annotated[list[str] | None, typer.Option("--group", help="Items of a group; may be repeated.")]


@app.command(rich_help_panel=FRESH)
def forget(
    scenario: Scenario_,
    id: Ids = None,
    source: Sources = None,
    group: Groups = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Take items out for good: of the data set and its older versions, quarantine, splits, predictions, pages and inbox.

    Says first what that is, and asks. Models that had them in their data are named and marked. The source itself is not
    changed.
    """
    with results() as out:
        workspace, _ = _begin(debug)
        from evergreen.scenario.loading import load_scenario
        from flows.forget import asked
        from flows.forget import forget as forget_

        def confirm(words: str) -> bool:
            print(words, file=sys.stderr)
            if yes or sys.stdin.isatty():
                return yes or typer.confirm("Go on?", default=False, err=True)
            raise WrongUse(
                "this needs a confirmation, and standard input is not a terminal", fix="Add --yes to forget the items above."
            )

        name = load_scenario(workspace.scenarios, scenario).name
        done = forget_(workspace, name, asked(workspace, name, id, source, group), confirm)
        if done is None:
            print(json.dumps({"scenario": name, "items": 0}) if as_json else "Nothing was taken out.", file=out)
        else:
            _say(out, as_json, done)


@app.command(rich_help_panel=FRESH)
def reinstate(
    scenario: Scenario_,
    id: Ids = None,
    source: Sources = None,
    group: Groups = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Bring items back into use that a mirrored source has withdrawn (`collect.mirror`); it does not withdraw them again."""
    with results() as out:
        workspace, _ = _begin(debug)
        from evergreen.scenario.loading import load_scenario
        from flows.forget import asked
        from flows.forget import reinstate as reinstate_

        name = load_scenario(workspace.scenarios, scenario).name
        _say(out, as_json, reinstate_(workspace, name, asked(workspace, name, id, source, group)))


@app.command(rich_help_panel=LOOK)
def report(
    scenarios: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Scenarios; without any, all that are in use.")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write one page that tells whether retraining was worth it: quality, energy, carbon and money by version, and the data's
    changes.

    \b
    Examples:
      evergreen report --open      all scenarios that are in use
      evergreen report parts
    """
    with results() as out:
        workspace, _ = _begin(debug)
        from evergreen.reporting.report import answer
        from flows.report import to_dict, write_report

        path, histories = write_report(workspace, scenarios or ())
        if as_json:
            print(json.dumps(to_dict(path, histories), default=str), file=out)
        else:
            for history in histories:
                print(wrapped(f"{history.scenario}: {answer(history)}", out), file=out)
            print(path.as_uri(), file=out)
        if open_it:
            import webbrowser

            webbrowser.open(path.as_uri())


@app.command(rich_help_panel=LOOK)
def look(
    scenario: Scenario_,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write one page on a scenario's data: counts, samples, near-duplicates, outliers, likely label errors, a map, and what
    trivial properties reach.

    It needs items, but no model: after the first `evergreen run`, or after one that failed in training.

    \b
    Examples:
      evergreen look parts --open
      evergreen look parts --json | jq '.suspects[:20]'
    """
    with results() as out:
        workspace, _ = _begin(debug)
        from flows.look import write_look

        written = write_look(workspace, scenario)
        if as_json:
            print(json.dumps(written.content), file=out)
        else:
            for sentence in written.conclusions:
                print(wrapped(sentence, out), file=out)
            print(written.path.as_uri(), file=out)
        if open_it:
            import webbrowser

            webbrowser.open(written.path.as_uri())


@app.command("list", rich_help_panel=LOOK)
def list_(as_json: Json = False, debug: Debug = False) -> None:
    """List the scenarios: items, champion with its accuracy, last run, schedule.

    \b
    Examples:
      evergreen list
      evergreen list --json
    """
    with results() as out:
        workspace, _ = _begin(debug)
        from flows.overview import scenario_rows
        from flows.tables import show_scenarios

        rows = scenario_rows(workspace)
        _say_all(out, as_json, {"scenarios": [row.to_dict() for row in rows]}, lambda: show_scenarios(rows, out))


@app.command(rich_help_panel=LOOK)
def status(
    scenarios: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Scenarios; without any, all.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what is running, where its pages are, what lies in the inboxes, and what a run would do and why.

    \b
    Examples:
      evergreen status
      evergreen status parts --json
    """
    with results() as out:
        workspace, _ = _begin(debug)
        from flows.overview import status as examined
        from flows.tables import show_status

        with progress.task("Looking at the scenarios"):
            found = examined(workspace, scenarios or [])
        _say_all(out, as_json, found, lambda: show_status(found, out))


@app.command(rich_help_panel=MODELS)
def delete(
    scenario: Scenario_,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Take a scenario out of this checkout; say first what is removed and what is kept.

    Data, registered models and MLflow's runs are kept. No other scenario is touched.

    \b
    Examples:
      evergreen delete parts
      evergreen delete parts --yes --json
    """
    with results() as out:
        workspace, _ = _begin(debug)
        from flows.removal import plan_removal, remove_scenario

        plan = plan_removal(workspace, scenario)
        if not yes:
            if as_json or not sys.stdin.isatty():
                raise WrongUse("this needs a confirmation, and standard input is not a terminal", fix="Add --yes.")
            print(wrapped(plan.announcement, sys.stderr), file=sys.stderr)
            typer.confirm(f"Delete {scenario}?", abort=True, err=True)
        _say(out, as_json, remove_scenario(workspace, scenario))


@app.command(rich_help_panel=LOOK)
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Look at this machine and checkout: what is there, what is missing, and how to fix it."""
    with results() as out:
        workspace, _ = _begin(debug)
        from flows.doctor import examine
        from flows.tables import show_findings

        findings = examine(workspace)
        if as_json:
            print(json.dumps({"findings": [finding.__dict__ for finding in findings]}), file=out)
        else:
            show_findings(findings, out)
    if any(finding.state == "broken" for finding in findings):
        raise EvergreenError("something above is broken", fix="Do what its line says.")


def main() -> None:
    """Entry point of the console command; reports every error in one line, with its exit status."""
    in_utf8()
    if sys.argv[1:2] == ["up"]:  # being stopped is its normal end, and three servers need time to end
        sys.exit(supervise(_work, _servers_are_stopped, grace_seconds=SERVERS_GRACE_SECONDS))
    if sys.argv[1:2] == ["review"]:  # here too
        sys.exit(supervise(_work, _review_is_ended))
    sys.exit(supervise(_work, lambda status: _report(STOPPED, status)))


def _servers_are_stopped(_status: int) -> int:
    with contextlib.suppress(OSError):  # the terminal may have been closed
        print("Everything is stopped.", file=sys.stderr)
    return 0


def _review_is_ended(_status: int) -> int:
    with contextlib.suppress(OSError):
        print("The review has ended. The same command goes on where you stopped.", file=sys.stderr)
    return 0


def _work() -> int:
    try:
        app(standalone_mode=False)
        status = 0
    except typer.Exit as exit_:
        status = exit_.exit_code
    except Exception as error:
        if stop_requested():
            raise
        status = _failed(error)
    # Skip the final garbage collection of what TensorFlow and other libraries leave behind: it took two seconds.
    gc.freeze()
    return status


def _failed(error: Exception) -> int:
    """Report an error in one line (with --debug, raise it again), and return the exit status."""
    from typer.exceptions import TyperException

    if isinstance(error, TyperException):
        error.show()  # type: ignore[attr-defined]
        return 2
    if isinstance(error, typer.Abort):
        return _report("Nothing was done: the question was not answered with yes.", 1)
    if "--debug" in sys.argv:
        raise error
    if isinstance(error, EvergreenError):
        return _report(str(error), error.exit_status)
    text = " ".join(str(error).split())[:500]
    if not _prefect_is_away(error):
        return _report(f"Unexpected {type(error).__name__}: {text} Run it again with --debug to see where.", 1)
    where = os.environ.get("PREFECT_API_URL")
    kept = "Finished stages are kept, and the champion stays in use. Start that server, or unset PREFECT_API_URL, and run the same command again."
    status = _report(f"Prefect's server at {where} does not answer ({text.rstrip('.')}). {kept}", 1)
    sys.stdout.flush()
    os._exit(status)  # at exit, Prefect would try for seconds to report to a server that isn't there


def _prefect_is_away(error: Exception) -> bool:
    """True for the errors that Prefect's client raises when the server does not answer."""
    if "PREFECT_API_URL" not in os.environ or "httpx" not in sys.modules:
        return False
    import httpx

    return isinstance(error, httpx.TransportError) or str(error).startswith("Failed to reach API")


def _report(line: str, status: int) -> int:
    print(wrapped(f"evergreen: {line}", sys.stderr), file=sys.stderr)
    if "--json" in sys.argv:
        print(json.dumps({"error": line, "exit_status": status}))
    return status


@contextlib.contextmanager
def results() -> Iterator[IO[str]]:
    """Yield the real standard output, which is only for results; everything that libraries and child processes print meanwhile
    goes to standard error, where progress is shown."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as out, progress.shown():
            yield out
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _begin(debug: bool) -> tuple[Workspace, bool]:
    """Set up logging and the environment; returns the checkout, and whether a Prefect server is configured."""
    _log(debug)
    workspace = Workspace.find()
    configure(workspace, verbose=debug)
    return workspace, "PREFECT_API_URL" in os.environ


def _log(debug: bool) -> None:
    """Send log messages to standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if not debug:  # Prefect's report of a failure, with its traceback, is replaced by one line of ours
        handler = logging.getLogger().handlers[0]
        handler.setLevel(logging.WARNING)
        handler.addFilter(lambda record: not record.name.startswith("prefect"))
    log = logging.getLogger("evergreen")
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.propagate = False  # Prefect replaces the root logger's handlers
    log.addHandler(Messages())


def _say_all(out: IO[str], as_json: bool, result: Any, show: Callable[[], None]) -> None:
    from dataclasses import asdict, is_dataclass

    def plain(value: Any) -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        return value.isoformat() if isinstance(value, datetime) else str(value)

    print(json.dumps(result, default=plain), file=out) if as_json else show()


def _say(out: IO[str], as_json: bool, result: Any) -> None:
    from dataclasses import asdict

    print(json.dumps(asdict(result), default=str) if as_json else wrapped(str(result), out), file=out)


if __name__ == "__main__":
    main()
