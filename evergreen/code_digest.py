"""Digests of the code on which a result depends, by its meaning: they stay the same if comments, docstrings, messages or
formatting change, and across versions of Python; they change if the computation does.

The code of a result is everything that its root definitions (functions, classes) reach through the names that they use, across
the modules of their top-level packages: definitions rather than whole modules, and of a class only the members whose names are
used as attributes anywhere in that code.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

LOGGERS = ("log", "logger", "logging", "warnings")
TEXTS_FOR_PEOPLE = ("__str__", "__repr__")
OF_THE_LANGUAGE = ("ABC", "Generic", "Protocol", "object")  # bases that call no methods of their subclasses by name
# Fields of AST nodes without meaning here, or that not every version of Python has.
FIELDS_LEFT_OUT = ("ctx", "kind", "returns", "type_comment", "type_ignores", "type_params")
MODULE_NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+")


class Name(NamedTuple):
    """What a name refers to: a definition in a module, or, if `name` is empty, the module itself."""

    module: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


@dataclass
class Code:
    """The relevant content of some code: its meaning as text, and the names and attributes that it uses."""

    text: str = ""
    names: set[Name] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Class:
    """A class: its bases, the code that every use of it needs, and its members, which count if their names are used."""

    bases: Sequence[Name]
    always: Code
    members: Mapping[str, Code]


class Sources:
    """The modules of some top-level packages, each parsed once."""

    def __init__(
        self, tops: Iterable[str], messages: Mapping[str, Collection[int | str] | None], folder: Path | None = None
    ) -> None:
        """
        Args:
            tops: names of the packages.
            messages: modules, functions and classes (`module:name`) that take text for people, each with the arguments that
                are such text, by position and name; None for all.
            folder: the folder of the packages; None for where Python finds each.
        """
        self.messages = messages
        self._folders = {top: [folder / top] if folder else _folders(top) for top in set(tops)}
        self._modules: dict[str, Module | None] = {}

    def module(self, name: str) -> Module | None:
        """A module; None if it belongs to another package.

        Raises:
            SyntaxError: it cannot be parsed.
        """
        if name not in self._modules:
            file = self.file(name)
            self._modules[name] = Module(name, file, self) if file else None
        return self._modules[name]

    def parsed(self) -> list[str]:
        """The modules that were parsed."""
        return [name for name, module in self._modules.items() if module]

    @functools.cache  # noqa: B019 - an instance is short-lived
    def file(self, name: str) -> Path | None:
        """The file of a module, found without an import: `importlib.util.find_spec` would import the parent packages."""
        top, *inner = name.split(".")
        for folder in self._folders.get(top, ()):
            path = folder.joinpath(*inner)
            for file in (path / "__init__.py", path.with_suffix(".py")):
                if file.is_file():
                    return file
        return None


def _folders(top: str) -> list[Path]:
    found = importlib.util.find_spec(top)
    if found is None:
        return []
    of_a_module = [found.origin.removesuffix(".py")] if found.origin else []  # not a package
    return [Path(folder) for folder in found.submodule_search_locations or of_a_module]


class Digests:
    """The digests of the code that some definitions reach.

    Attributes:
        by_module: a digest for each module that contributes to it, 16 hex digits.
        parts: the definitions that were reached, as `module:function`, `module:Class` and `module:Class.member`; `module:` is
            the code that runs when a module is imported.
        met: the entries of `excluded` that were encountered.
    """

    def __init__(self, sources: Sources, roots: Iterable[str], excluded: Collection[str]) -> None:
        """
        Args:
            roots: the root definitions, as `module:name`.
            excluded: packages, modules, definitions and members that are left out, together with what only they use.

        Raises:
            KeyError: a root doesn't exist.
            SyntaxError: a module cannot be parsed.
        """
        self._sources, self._excluded = sources, frozenset(excluded)
        self._attributes: set[str] = set()
        self._waiting: defaultdict[str, list[tuple[str, Code]]] = defaultdict(list)  # members by name, until the name is used
        self._texts: dict[str, str] = {}
        self._ahead, self._seen = [Name(*root.split(":")) for root in roots], set[Name]()
        self.met: set[str] = set()
        for name in self._ahead:
            module = sources.module(name.module)
            if module is None or name.name not in module.definitions:
                raise KeyError(str(name))
        while self._ahead:
            self._reach(self._ahead.pop())
        self.parts = sorted(self._texts)
        self.by_module = self._digests()

    def _reach(self, name: Name) -> None:
        if name in self._seen:
            return
        self._seen.add(name)
        module = None if self._is_excluded(str(name), *_with_parents(name.module)) else self._sources.module(name.module)
        if module is None:
            return
        self._take(f"{name.module}:", module.on_import)
        if not name.name:
            self._ahead += [Name(name.module, defined) for defined in module.definitions]
        elif name.name in module.definitions:
            for code in module.definitions[name.name]:
                if isinstance(code, Class):
                    self._take_class(name, code)
                else:
                    self._take(str(name), code)
        elif name.name in module.imports:
            self._ahead.append(module.imports[name.name])

    def _is_excluded(self, *names: str) -> bool:
        met = self._excluded.intersection(names)
        self.met |= met
        return bool(met)

    def _take_class(self, name: Name, code: Class) -> None:
        self._take(str(name), code.always)
        called_by_library = self._is_of_a_library(code)
        for member, inside in code.members.items():
            always = (called_by_library or member.startswith("__")) and member not in TEXTS_FOR_PEOPLE
            if always or member in self._attributes:
                self._take(f"{name}.{member}", inside)
            else:
                self._waiting[member].append((f"{name}.{member}", inside))

    def _is_of_a_library(self, code: Class) -> bool:
        """Whether a class has a base outside the project, which may call members whose names are not used here."""
        for base in code.bases:
            module = self._sources.module(base.module)
            if module is None:
                return True
            defined = module.definitions.get(base.name, [])
            if any(self._is_of_a_library(one) for one in defined if isinstance(one, Class)):
                return True
        return False

    def _take(self, part: str, code: Code) -> None:
        if self._is_excluded(part):
            return
        self._texts[part] = code.text
        self._ahead += sorted(code.names)
        new = code.attributes - self._attributes
        self._attributes |= new
        for attribute in sorted(new):
            for waiting in self._waiting.pop(attribute, []):
                self._take(*waiting)

    def _digests(self) -> dict[str, str]:
        by_module: defaultdict[str, list[str]] = defaultdict(list)
        for part in self.parts:
            if self._texts[part]:
                by_module[part.partition(":")[0]].append(f"{part} {self._texts[part]}")
        return {
            module: hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] for module, texts in sorted(by_module.items())
        }


class Module:
    """The definitions of one module.

    Attributes:
        definitions: by name; several if a name is defined more than once.
        imports: what the imported names refer to.
        on_import: the code that runs on import, other than definitions of names.
    """

    def __init__(self, name: str, file: Path, sources: Sources) -> None:
        self.name, self._sources = name, sources
        self.imports: dict[str, Name] = {}
        self.definitions: dict[str, list[Code | Class]] = defaultdict(list)
        statements = list(_statements(ast.parse(file.read_bytes(), str(file)).body))
        for statement in statements:
            self.imports |= self.imported(ast.walk(statement) if _is_compound(statement) else [statement])
        bound = [(statement, list(_bound(statement))) for statement in statements]
        self.known = {name for _, names in bound for name in names}
        on_import = []
        for statement, names in bound:
            if isinstance(statement, ast.ClassDef):
                self.definitions[statement.name].append(self._class(statement))
                continue
            for name in names:
                self.definitions[name].append(Reader(self).read(statement))
            if not names:
                on_import.append(statement)
        self.on_import = Reader(self).read(on_import)

    def imported(self, nodes: Iterable[ast.AST]) -> dict[str, Name]:
        """What the names bound by import statements refer to."""
        found = {}
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                package = self.name.split(".")[: -node.level] if node.level else []
                module = ".".join([*package, *([node.module] if node.module else [])])
                for alias in node.names:
                    inner = f"{module}.{alias.name}"
                    found[alias.asname or alias.name] = Name(inner) if self._sources.file(inner) else Name(module, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    found[alias.asname or alias.name.partition(".")[0]] = Name(alias.name)
        return found

    def messages(self, called: Name) -> Collection[int | str] | None:
        """Which arguments of a call are text for people, by position and name; None for all."""
        known = self._sources.messages
        return known.get(str(called), known.get(called.module, ()))

    def names_module(self, text: str) -> bool:
        """Whether a string is the name of a module of the project."""
        return MODULE_NAME.fullmatch(text) is not None and self._sources.file(text) is not None

    def _class(self, node: ast.ClassDef) -> Class:
        always: list[ast.AST] = [*map(_without_parameters, node.bases), *node.keywords, *node.decorator_list]
        members: defaultdict[str, list[ast.AST]] = defaultdict(list)
        for statement in _statements(node.body):
            bound = [] if isinstance(statement, ast.AnnAssign) else list(_bound(statement))
            if not bound:
                always.append(statement)
            for name in bound:
                members[name].append(statement)
        bases = [self._base(_without_parameters(base)) for base in node.bases]
        return Class(
            [base for base in bases if base.name not in OF_THE_LANGUAGE],
            Reader(self, fields=True).read(always),
            {name: Reader(self).read(nodes) for name, nodes in members.items()},
        )

    def _base(self, base: ast.expr) -> Name:
        if isinstance(base, ast.Name):
            return self.imports.get(base.id) or Name(self.name if base.id in self.known else "builtins", base.id)
        return Name(ast.unparse(base))  # an attribute of a library's module


class Reader:
    """Reads the meaning of some code."""

    def __init__(self, module: Module, *, fields: bool = False) -> None:
        """
        Args:
            fields: whether annotations of assignments count, as in the body of a dataclass.
        """
        self._module, self._fields, self._code = module, fields, Code()
        self._imports: Mapping[str, Name] = module.imports

    def read(self, nodes: ast.AST | Sequence[ast.AST]) -> Code:
        """The meaning of some nodes."""
        nodes = [nodes] if isinstance(nodes, ast.AST) else nodes
        inside = self._module.imported(inner for node in nodes for inner in ast.walk(node))
        self._imports = self._module.imports | inside
        self._code.text = " ".join(filter(None, map(self._text, nodes)))
        return self._code

    def _text(self, value: object) -> str:
        """The meaning as text; empty if there is none."""
        match value:
            case None | []:
                return ""
            case list():
                return f"[{' '.join(filter(None, map(self._text, value)))}]"
            case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(value=ast.Constant()):
                return ""  # the origin of an imported name is part of the text where the name is used
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))) if name in LOGGERS:
                return ""
            case ast.If() if _for_type_checking(value):
                return self._text(value.orelse)
            case ast.Raise(exc=ast.Call(func=error)):
                return f"(Raise {self._text(error)})"
            case ast.Call(func=ast.Name(id=name)) if (of := self._module.messages(self._called(name))) != ():
                args = [argument for position, argument in enumerate(value.args) if of is not None and position not in of]
                keywords = [keyword for keyword in value.keywords if of is not None and keyword.arg not in of]
                return f"(Call {self._text(value.func)} {self._text(args)} {self._text(keywords)})"
            case ast.Assert():
                return f"(Assert {self._text(value.test)})"
            case ast.keyword(arg="description"):
                return ""
            case ast.arg():
                return value.arg
            case ast.AnnAssign() if not self._fields:
                return self._text(ast.Assign([value.target], value.value)) if value.value else ""
            case ast.Name(id=name):
                return self._name(name)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if self._is_module(name):
                module = self._imports[name].module
                self._code.names.add(Name(module, attribute))
                self._code.attributes.add(attribute)
                return f"{module}:{attribute}"
            case ast.Attribute():
                self._code.attributes.add(value.attr)
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(attribute)), *_]):
                self._code.attributes.add(attribute)
            case ast.JoinedStr():
                return f"(JoinedStr {self._text(_joined(value.values))})"
            case ast.Constant():
                if isinstance(value.value, str) and self._module.names_module(value.value):
                    self._code.names.add(Name(value.value))
                return f"{type(value.value).__name__}:{value.value!r}"
            case ast.AST():
                pass
            case _:
                return f"{value!r}"
        # Empty fields are left out, so the others need their names.
        fields = ((name, self._text(inner)) for name, inner in ast.iter_fields(value) if name not in FIELDS_LEFT_OUT)
        return f"({type(value).__name__}{''.join(f' {name}={text}' for name, text in fields if text)})"

    def _name(self, name: str) -> str:
        if name in self._imports:
            self._code.names.add(self._imports[name])
            return str(self._imports[name])
        if name in self._module.known:
            self._code.names.add(Name(self._module.name, name))
        return name

    def _called(self, name: str) -> Name:
        return self._imports.get(name) or Name(self._module.name, name)

    def _is_module(self, name: str) -> bool:
        return name in self._imports and not self._imports[name].name


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported."""
    for statement in body:
        if isinstance(statement, ast.If) and _for_type_checking(statement):
            yield from _statements(statement.orelse)
        elif not (
            isinstance(statement, ast.If) and "__name__" in {getattr(node, "id", "") for node in ast.walk(statement.test)}
        ):
            yield statement


def _is_compound(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement outside functions defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign) or _is_compound(statement):
        for node in ast.walk(statement):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _for_type_checking(statement: ast.If) -> bool:
    return "TYPE_CHECKING" in {getattr(statement.test, "id", ""), getattr(statement.test, "attr", "")}


def _without_parameters(base: ast.expr) -> ast.expr:
    """A base class without its type parameters."""
    return base.value if isinstance(base, ast.Subscript) else base


def _joined(parts: Iterable[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string, with adjacent constants merged, since versions of Python split them differently."""
    merged: list[ast.expr] = []
    for part in parts:
        if isinstance(part, ast.Constant) and merged and isinstance(merged[-1], ast.Constant):
            merged[-1] = ast.Constant(str(merged[-1].value) + str(part.value))
        elif not (isinstance(part, ast.Constant) and part.value == ""):
            merged.append(part)
    return merged


def _with_parents(module: str) -> Iterator[str]:
    while module:
        yield module
        module = module.rpartition(".")[0]
