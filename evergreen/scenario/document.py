"""Reads a scenario's YAML file, and reports each mistake with the line, the key and the allowed values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from evergreen.errors import WrongUse
from evergreen.secrets import without_secrets

Model = TypeVar("Model", bound=BaseModel)


class Document:
    """A scenario file, read according to the type of each key: text stays as written even if YAML would interpret it as
    something else (`001` as 1, `1e5` as 100000.0, `null` as nothing, `2024-01-01` as a date). Keys are always text.

    Attributes:
        path: of the file.
        kind: the kind of scenario that the file names; None if it names none.
    """

    def __init__(self, path: Path, text: str) -> None:
        from ruamel.yaml import YAML

        yaml = YAML(typ="safe", pure=True)
        self.path = path
        self._root = yaml.compose(text)
        self._construct = yaml.constructor.construct_object
        if self._root is None or self._root.id != "mapping":
            raise WrongUse(f"{path.name} holds no scenario", expected="keys such as name, collect, validate, preprocess")
        kinds = [value.value for key, value in self._root.value if key.value == "kind" and value.id == "scalar"]
        self.kind: str | None = kinds[-1] if kinds else None

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a file.

        Raises:
            WrongUse: the file is not YAML, not UTF-8, or not a mapping.
        """
        from ruamel.yaml.error import MarkedYAMLError

        with _errors_explained(path, MarkedYAMLError):
            return cls(path, path.read_text(encoding="utf-8"))

    def validated(self, model: type[Model]) -> Model:
        """The content of the file as a pydantic model.

        Raises:
            WrongUse: a key or value isn't allowed; the message names file, line and key.
        """
        from ruamel.yaml.error import MarkedYAMLError

        with _errors_explained(self.path, MarkedYAMLError):
            content = self._read(self._root, model)
        try:
            return model.model_validate(content)
        except ValidationError as errors:
            raise WrongUse(_explain(self, model, errors)) from None

    def line(self, location: tuple[int | str, ...]) -> int:
        """The line (from 1) of the deepest part of `location` that exists in the document."""
        line, node = 1, self._root
        for step in location:
            if node.id == "mapping":
                found = [(key, value) for key, value in node.value if key.value == str(step)]
            else:
                found = (
                    [(one, one) for one in node.value[step : step + 1]]
                    if node.id == "sequence" and isinstance(step, int)
                    else []
                )
            if not found:
                break
            line, node = found[-1][0].start_mark.line + 1, found[-1][1]
        return int(line)

    def _read(self, node: Any, expected: Any) -> Any:
        if node.id == "mapping":
            return self._read_mapping(node, expected)
        if node.id == "sequence":
            return [self._read(item, _of_items(expected)) for item in node.value]
        given = node.tag != "tag:yaml.org,2002:null"
        kinds = _scalars(expected)
        if str in kinds and (given or type(None) not in kinds) and node.value:
            return node.value
        return self._construct(node)

    def _read_mapping(self, node: Any, expected: Any) -> dict[str, Any]:
        from ruamel.yaml.constructor import DuplicateKeyError

        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for other in value.value if value.id == "sequence" else [value]:
                    merged = {**self._read(other, expected), **merged}
            elif key.id != "scalar" or key.value in own:
                problem = "a key that is no text" if key.id != "scalar" else f"the key {key.value} is there twice"
                raise DuplicateKeyError(None, None, problem, key.start_mark)
            else:
                own[key.value] = self._read(value, _of_key(expected, key.value))
        return {**merged, **own}


@contextlib.contextmanager
def _errors_explained(path: Path, marked: Any) -> Iterator[None]:
    """Convert the parser's exceptions to errors for users.

    Args:
        marked: the parser's exception type, which has the line.
    """
    try:
        yield
    except marked as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise WrongUse(f"{path.name}, line {line}: not YAML: {error.problem}", fix="Correct the line.") from None
    except UnicodeDecodeError:
        raise WrongUse(f"{path.name} is not a text file in UTF-8", fix="Save it as UTF-8.") from None
    except RecursionError:
        raise WrongUse(f"{path.name} refers to itself without end", fix="Remove the YAML alias (*name).") from None


def _alternatives(expected: Any) -> list[Any]:
    """The types that an annotation allows, with unions and `Annotated` resolved."""
    if get_origin(expected) is Annotated:
        return _alternatives(get_args(expected)[0])
    if get_origin(expected) in (Union, UnionType):
        return [one for argument in get_args(expected) for one in _alternatives(argument)]
    return [expected]


def _scalars(expected: Any) -> set[type]:
    """The types of the scalars that an annotation allows."""
    found: set[type] = set()
    for one in _alternatives(expected):
        found |= (
            {type(value) for value in get_args(one)}
            if get_origin(one) is Literal
            else {one}
            if isinstance(one, type)
            else set()
        )
    return found


def _of_items(expected: Any) -> Any:
    lists = [one for one in _alternatives(expected) if get_origin(one) in (list, tuple)]
    return get_args(lists[0])[0] if lists else None


def _of_key(expected: Any, key: str) -> Any:
    for one in _alternatives(expected):
        if get_origin(one) is dict:
            return get_args(one)[1]
        if isinstance(one, type) and issubclass(one, BaseModel):
            field = next((field for name, field in one.model_fields.items() if key == (field.alias or name)), None)
            return field.annotation if field else None
    return None


def _explain(document: Document, model: type[BaseModel], errors: ValidationError) -> str:
    sentences = []
    for error in errors.errors():
        location = tuple(error["loc"])
        key = ".".join(str(step) for step in location) or "the file"
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = f"unknown key; allowed are {', '.join(_allowed(model, location[:-1]))}"
        elif error["type"] == "missing":
            message = "this key is missing"
        else:
            message += f"; got {without_secrets(repr(error['input'])):.120}"
        sentences.append(f"{document.path.name}, line {document.line(location)}: {key}: {message}")
    return " | ".join(sentences)


def _allowed(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """The keys of a section."""
    for step in location:
        field = next((f for n, f in model.model_fields.items() if step in (n, f.alias)), None)
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return sorted(field.alias or name for name, field in model.model_fields.items())
