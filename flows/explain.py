"""`evergreen explain`: a model's answers for files, each with a heat map of what it rests on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from evergreen import figures, progress
from evergreen.data.sources.folder import read_file
from evergreen.errors import BadItem, EvergreenError, WrongUse
from evergreen.scenario.loading import load_scenario
from evergreen.workspace import Workspace, replace_file, room_for
from flows.terminal import wrapped


@dataclass(frozen=True)
class Explained:
    """The answer for one file.

    Attributes:
        file: its path, as it was given.
        label, probability, probabilities, unknown: the answer, as in `evergreen.serving.explaining.Explanation`.
        explained: the label that the picture is about.
        picture: the file with the heat map.
    """

    file: str
    label: str
    probability: float
    probabilities: dict[str, float]
    unknown: str
    explained: str
    picture: Path

    def to_dict(self) -> dict[str, Any]:
        """The answer for JSON."""
        return {**self.__dict__, "picture": str(self.picture)}


def explain(
    workspace: Workspace, name: str, files: Sequence[Path], *, version: str, label: str | None, folder: Path | None
) -> list[Explained]:
    """Explain the answers of a scenario's model, and write a picture of each.

    Args:
        version: a model version, or an alias.
        label: the label to explain; None for the answer of each file.
        folder: for the pictures; None for `outputs/NAME/explained`.

    Raises:
        WrongUse: there is no such scenario, version or label, or a file is missing or cannot be used. Then nothing is written.
    """
    scenario = load_scenario(workspace.scenarios, name)
    contents = [_content(file) for file in files]
    from evergreen.serving.explaining import explain as explained_by
    from evergreen.serving.scoring import load

    with progress.task("Loading the model", until_next=True):
        model = load(workspace, scenario.name, version)
    found = []
    with progress.task("Explaining", total=len(files), unit="files") as report:
        for number, (file, content) in enumerate(zip(files, contents, strict=True), 1):
            try:
                found.append((file, explained_by(model, content, label)))
            except BadItem as bad:
                raise WrongUse(f"{file} cannot be used: {bad.detail}", fix="Leave it out, or convert it.") from None
            report(number)
    target = workspace.explained(scenario.name) if folder is None else folder
    names = _names([file for file, _ in found])
    with room_for("for the pictures"):
        for picture, (_, one) in zip(names, found, strict=True):
            try:
                replace_file(target / picture, one.picture)
            except (NotADirectoryError, FileExistsError, PermissionError) as error:
                raise EvergreenError(
                    f"there can be no picture in {target} ({error.strerror})", fix="Name another folder with --output."
                ) from None
    return [
        Explained(str(file), one.label, one.probability, dict(one.probabilities), one.unknown, one.explained, target / picture)
        for picture, (file, one) in zip(names, found, strict=True)
    ]


def show_explained(found: Sequence[Explained], out: IO[str]) -> None:
    """Print a line for each file, with its picture's path."""
    for one in found:
        about = "" if one.explained == one.label else f" of {one.explained}"
        doubt = f"unknown ({one.unknown}), most probable " if one.unknown else ""
        text = f"{one.file}: {doubt}{one.label}, {figures.percent(one.probability)}; heat map{about}: {one.picture}"
        print(wrapped(text, out), file=out)


def _content(file: Path) -> bytes:
    """
    Raises:
        WrongUse: there is no such file, or it can't be read.
    """
    if file.is_dir():
        raise WrongUse(f"{file} is a folder", expected="image files", fix=f"Name its files: {file}/*")
    if not file.exists():
        raise WrongUse(f"there is no file {file}", expected="the paths of image files")
    entry = read_file(file.name, str(file.resolve()).encode(errors="surrogateescape"))
    if entry.data is None:
        raise WrongUse(f"{file} cannot be read: {entry.detail or entry.problem}", expected="an image file")
    return entry.data


def _names(files: Sequence[Path]) -> list[str]:
    """A name for the picture of each file, all different."""
    names: list[str] = []
    for file in files:
        stem = re.sub(r"[/\0]", "_", file.name.rpartition(".")[0] or file.name)
        name, number = f"{stem}.heat.png", 1
        while name in names:
            name, number = f"{stem}-{number}.heat.png", number + 1
        names.append(name)
    return names
