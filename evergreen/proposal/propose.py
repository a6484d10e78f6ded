"""`evergreen new`: finds the kind of scenario that fits a source, and writes a scenario from that kind's proposal."""

from __future__ import annotations

import contextlib
import io
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from evergreen.data.sources.remote import remote_address
from evergreen.data.sources.web import download
from evergreen.errors import EvergreenError, WrongUse
from evergreen.kinds.base.kind import Kind
from evergreen.kinds.base.proposal import Ask, Sections, SourceDoesNotFit
from evergreen.names import readable_name
from evergreen.scenario.kinds import installed_kinds, load_kind
from evergreen.scenario.settings import NAME_PATTERN, Collect
from evergreen.secrets import has_credentials, shown
from evergreen.workspace import Workspace


@dataclass(frozen=True)
class Proposal:
    """A scenario that fits a source.

    Attributes:
        name: of the scenario.
        yaml: the text of its file.
        reasons: sentences that say what was chosen and why.
        counts: the number of items of each label; empty if items have no labels.
        tree: lines that show how the source was understood.
    """

    name: str
    yaml: str
    reasons: list[str]
    counts: dict[str, int]
    tree: list[str]


def propose(
    name: str,
    source: Path,
    workspace: Workspace,
    kinds: Sequence[str],
    *,
    labels_at: int | None,
    follow_links: bool,
    ask: Ask | None,
    private_addresses: bool = False,
) -> Proposal:
    """Propose a scenario of the first kind that fits a source; if other kinds fit too, the reasons say so.

    Args:
        source: a folder, or a .tar, .tar.gz or .zip; or an address: of such a file on the web, which is downloaded, or of a
            folder in a store.
        kinds: the kinds to try, in this order; at least one.
        labels_at: the level of the folders that name the labels, counted from 1 below the source; None to detect it.
        follow_links: whether to follow links that lead out of the folder.
        ask: called with a kind's question if the source can be understood in several ways; None to take the likeliest one.
        private_addresses: whether the address of a file may lead to a private network or to this machine.

    Raises:
        WrongUse: the name is taken or not valid, or the source is missing or fits none of the kinds.
        DataRefused: the archive is damaged or malicious.
    """
    _refuse_name(name, workspace)
    local, place = _located(source, workspace, private_addresses)
    kind, sections, others = _first_that_fits([_installed(one) for one in kinds], local, labels_at, follow_links, ask)
    reasons = list(sections.reasons)
    if others:
        reasons.insert(
            0,
            f"The source fits several kinds of scenario: {kind.name} is taken, and {', '.join(others)} would do. Choose with --kind.",
        )
    collect = {**place, **sections.collect, **({"follow_links": True} if follow_links else {})}
    document: dict[str, Any] = {
        "name": name,
        "description": f"Proposed by evergreen new from {readable_name(source.name)}",
        "kind": kind.name,
        "country": "DEU",
        "seed": 7,
        "collect": collect,
        **sections.others,
        "retraining": {"cron": _schedule(name, reasons)},
    }
    kind.scenario_type.model_validate(document)
    return Proposal(name, _yaml(document, reasons), reasons, dict(sections.counts), list(sections.tree))


def _installed(name: str) -> Kind:
    """
    Raises:
        WrongUse: there is no such kind.
    """
    if name not in installed_kinds():
        raise WrongUse(
            "there is no such kind of scenario", expected=f"one of {', '.join(installed_kinds())}", received=name,
            fix="Choose one of these, or leave --kind out.",
        )  # fmt: skip
    kind: Kind = load_kind(name)
    return kind


def _first_that_fits(
    kinds: Sequence[Kind], source: Path, labels_at: int | None, follow_links: bool, ask: Ask | None
) -> tuple[Kind, Sections, list[str]]:
    """The first kind that fits the source, its proposal, and the names of later kinds that fit too.

    Raises:
        WrongUse: the source fits none of the kinds.
    """
    refusals: list[SourceDoesNotFit] = []
    for number, kind in enumerate(kinds):
        try:
            sections = kind.contract.propose(source, labels_at=labels_at, follow_links=follow_links, ask=ask)
        except SourceDoesNotFit as refusal:
            refusals.append(refusal)
        else:
            return kind, sections, _others_that_fit(kinds[number + 1 :], source, labels_at, follow_links)
    if len(refusals) == 1:
        raise refusals[0]
    names = [kind.name for kind in kinds]
    reasons = " ".join(f"For {name}: {refusal}" for name, refusal in zip(names, refusals, strict=True))
    raise WrongUse(f"no kind of scenario fits {source}", expected=f"items of one of {', '.join(names)}", fix=reasons)


def _others_that_fit(kinds: Sequence[Kind], source: Path, labels_at: int | None, follow_links: bool) -> list[str]:
    """The names of the kinds that fit the source; the user is asked no questions."""
    found = []
    for kind in kinds:
        with contextlib.suppress(EvergreenError):  # the reason does not matter, since another kind is used
            kind.contract.propose(source, labels_at=labels_at, follow_links=follow_links, ask=None)
            found.append(kind.name)
    return found


def _refuse_name(name: str, workspace: Workspace) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise WrongUse(
            "that is no name for a scenario", expected="small letters, digits and hyphens, at most 63", received=name,
            fix="Give a plain name, for example: evergreen new leaves --images PATH",
        )  # fmt: skip
    if (workspace.scenarios / f"{name}.yaml").exists():
        raise WrongUse(
            f"there is a scenario {name} already", fix=f"Choose another name, or change scenarios/{name}.yaml by hand."
        )


def _located(source: Path, workspace: Workspace, private_addresses: bool) -> tuple[Path, dict[str, Any]]:
    """Where the source is read, and the settings of the section `collect` that name it. A file of the web is downloaded to
    where the scenario looks for it."""
    address = remote_address(source)
    if address is None:
        return source, {"path": _path(source, workspace)}
    if has_credentials(address):
        raise WrongUse(
            f"the address {shown(address)} was given with credentials", expected="an address alone",
            fix="Take them out; docs/guide.md says from which variables of the environment they are read.",
        )  # fmt: skip
    if not address.startswith(("http://", "https://")):
        return source, {"remote": address}
    name = urlsplit(address).path.rpartition("/")[2]
    if not name:
        raise WrongUse(
            f"the address {shown(address)} names no file", fix="Give the address of an archive, such as .zip or .tar.gz."
        )
    found: dict[str, Any] = {"file": name, "url": address, "sha256": None}
    if private_addresses:
        found["download"] = {"private_addresses": True}
    settings = Collect.model_validate(found)
    target = workspace.private / "downloads" / name
    found["sha256"] = download(address, target, settings.download)
    return target, found


def _path(source: Path, workspace: Workspace) -> str:
    path = Path(os.path.abspath(source))
    if readable_name(str(path)) != str(path):
        raise WrongUse(f"the path {readable_name(str(path))} is not UTF-8", fix="Rename it; a scenario is a text file.")
    return str(path.relative_to(workspace.root) if path.is_relative_to(workspace.root) else path)


def _schedule(name: str, reasons: list[str]) -> str:
    """A cron schedule: once a week, at an hour of the night and a minute that differ between scenarios."""
    spread = zlib.crc32(name.encode())
    hour, minute = 1 + spread % 5, spread // 5 % 60
    reasons.append(
        f"Retraining looks for a reason every Sunday at {hour:02d}:{minute:02d} UTC, once this scenario has been run and while evergreen up "
        "runs: change or remove retraining.cron as you like."
    )
    return f"{minute} {hour} * * SUN"


def _yaml(document: dict[str, Any], reasons: list[str]) -> str:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    text = io.StringIO()
    yaml.dump(_lists_in_a_line(document), text)
    comments = "".join(f"# {' '.join(reason.split())}\n" for reason in reasons)
    return comments + text.getvalue()


def _lists_in_a_line(value: Any) -> Any:
    from ruamel.yaml.comments import CommentedSeq

    if isinstance(value, dict):
        return {key: _lists_in_a_line(one) for key, one in value.items()}
    if isinstance(value, list):
        sequence = CommentedSeq(value)
        sequence.fa.set_flow_style()
        return sequence
    return value
