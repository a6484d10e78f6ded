"""Which kind of scenario a source fits, and what a proposal says beside what the kind does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from evergreen.errors import WrongUse
from evergreen.kinds.base.proposal import Question
from evergreen.proposal.propose import Proposal
from evergreen.proposal.propose import propose as propose_of
from evergreen.scenario.kinds import installed_kinds
from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace
from tests.support.kinds import tiny_kind_installed
from tests.support.readings.example import DAYS
from tests.support.readings.example import write as write_readings


def propose(workspace: Workspace, source: Path, kinds: list[str], name: str = "weather") -> Proposal:
    def ask(question: Question) -> int:
        raise AssertionError(f"asked without need: {question.text}")

    return propose_of(name, source, workspace, kinds, labels_at=None, follow_links=False, ask=ask)


def refusal(workspace: Workspace, source: Path, kinds: list[str], name: str = "weather") -> str:
    with pytest.raises(WrongUse) as refused:
        propose(workspace, source, kinds, name)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def two_kinds() -> Iterator[list[str]]:
    """Images and readings, in the order in which `evergreen new` tries them."""
    with tiny_kind_installed():
        assert installed_kinds() == ["classify", "forecast", "readings"]
        yield ["classify", "readings"]


@pytest.fixture
def readings(workspace: Workspace) -> Path:
    """A folder of readings, in the checkout."""
    folder = workspace.root / "readings"
    write_readings(folder)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of labelled images."""
    folder = tmp_path / "pictures"
    for place, label in enumerate(("dark", "light")):
        (folder / label).mkdir(parents=True)
        for number in range(12):
            Image.new("L", (16, 16), 100 * place + number).save(folder / label / f"{number}.png")
    return folder


def both(pictures: Path, readings: Path) -> Path:
    """The images with the readings beside them."""
    (readings / "2023.csv").rename(pictures / "2023.csv")
    return pictures


def test_a_source_is_of_the_kind_that_it_fits(
    workspace: Workspace, two_kinds: list[str], pictures: Path, readings: Path
) -> None:
    for source, kind in ((pictures, "classify"), (readings, "readings")):
        proposal = propose(workspace, source, two_kinds)
        (workspace.scenarios / "weather.yaml").write_text(proposal.yaml)
        assert load_scenario(workspace.scenarios, "weather").kind == kind
        assert not any("several kinds" in reason for reason in proposal.reasons)
        (workspace.scenarios / "weather.yaml").unlink()


def test_lines_of_a_date_and_a_number_are_readings(workspace: Workspace, two_kinds: list[str], readings: Path) -> None:
    (readings / "stations.csv").write_text("station,height\nnorth,412\n")
    proposal = propose(workspace, readings, two_kinds)
    (workspace.scenarios / "weather.yaml").write_text(proposal.yaml)
    scenario = load_scenario(workspace.scenarios, "weather")
    assert (scenario.kind, scenario.collect.path, scenario.train.epochs) == ("readings", "readings", 30)
    assert scenario.retraining.cron is not None
    assert proposal.reasons[0] == f"{DAYS} readings." and (proposal.counts, proposal.tree) == ({}, [])


def test_csv_files_of_other_lines_are_no_readings(workspace: Workspace, two_kinds: list[str], tmp_path: Path) -> None:
    source = tmp_path / "tables"
    source.mkdir()
    (source / "stations.csv").write_text("station,height\nnorth,412\n")
    words = refusal(workspace, source, two_kinds)
    assert (
        f"For classify: there are no images in {source}" in words
        and f"For readings: there are no readings in {source}" in words
    )


def test_of_several_kinds_the_first_is_taken_and_said_so(
    workspace: Workspace, two_kinds: list[str], pictures: Path, readings: Path
) -> None:
    source = both(pictures, readings)
    for order in (two_kinds, two_kinds[::-1]):
        first, second = order
        proposal = propose(workspace, source, order)
        words = f"The source fits several kinds of scenario: {first} is taken, and {second} would do. Choose with --kind."
        assert proposal.reasons[0] == words and f"# {words}\n" in proposal.yaml and f"\nkind: {first}\n" in proposal.yaml


def test_a_kind_that_is_named_is_the_only_one_that_comes_into_question(
    workspace: Workspace, two_kinds: list[str], pictures: Path, readings: Path
) -> None:
    source = both(pictures, readings)
    for kind in two_kinds:
        proposal = propose(workspace, source, [kind])
        assert f"\nkind: {kind}\n" in proposal.yaml and not any("several kinds" in reason for reason in proposal.reasons)


def test_a_later_kind_asks_nothing_and_refuses_nothing(
    workspace: Workspace, two_kinds: list[str], tmp_path: Path, readings: Path
) -> None:
    """Of these images it is in doubt which folders are the labels, and of those no scenario can be made."""
    for names in (("red/small", "red/large", "blue/small", "blue/large"), ("alone",)):
        source = tmp_path / names[0] / "source"
        for place, name in enumerate(names):
            (source / name).mkdir(parents=True)
            for number in range(6):
                Image.new("L", (16, 16), 20 * place + number).save(source / name / f"{number}.png")
        (source / "2023.csv").write_bytes((readings / "2023.csv").read_bytes())
        proposal = propose(workspace, source, two_kinds[::-1])
        assert "\nkind: readings\n" in proposal.yaml
        assert ("classify would do" in proposal.reasons[0]) == (len(names) > 1)


def test_a_kind_that_there_is_not_is_refused_with_those_that_there_are(workspace: Workspace) -> None:
    words = refusal(workspace, workspace.root, ["clasify"])
    assert "there is no such kind of scenario" in words and "classify" in words and "got 'clasify'" in words


def test_a_source_that_fits_none_of_several_kinds_is_refused_with_the_reason_of_each(
    workspace: Workspace, tmp_path: Path
) -> None:
    words = refusal(workspace, tmp_path, ["classify", "classify"])
    assert f"no kind of scenario fits {tmp_path}" in words and words.count("For classify: there are no images in") == 2


def test_a_weekly_retraining_is_proposed_at_a_time_of_the_scenarios_own(workspace: Workspace, pictures: Path) -> None:
    crons = set()
    for name in ("leaves", "trees", "pets"):
        (workspace.scenarios / f"{name}.yaml").write_text(propose(workspace, pictures, ["classify"], name).yaml)
        crons.add(load_scenario(workspace.scenarios, name).retraining.cron)
    assert len(crons) == 3 and all(re.fullmatch(r"\d+ [1-5] \* \* SUN", cron or "") for cron in crons)


@pytest.mark.parametrize("name", ["Leaves", "my leaves", "../leaves", "", "-leaves", "l" * 64, "leaves.yaml", "leaves\n"])
def test_a_bad_name_is_refused_with_a_good_one(workspace: Workspace, name: str) -> None:
    words = refusal(workspace, workspace.root, ["classify"], name)
    assert "small letters, digits and hyphens" in words and "evergreen new leaves" in words


def test_the_name_of_a_scenario_that_there_is_is_refused(workspace: Workspace) -> None:
    assert "scenarios/quickstart.yaml" in refusal(workspace, workspace.root, ["classify"], "quickstart")
