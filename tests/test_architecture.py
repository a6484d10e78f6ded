"""Which part of the project may import which, as docs/architecture.md says it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.shipped import ROOT

# Each package of `evergreen` imports only those above it, and the modules directly in `evergreen`, which import none of them.
PACKAGES = (
    "scenario", "media", "data", "kinds.base", "models", "energy", "evaluation", "registry", "preparation", "privacy", "proposal", "serving",
    "planning", "training", "monitoring", "review", "reporting", "kinds",
)  # fmt: skip
MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for top in ("evergreen", "tasks", "flows")
    for path in (ROOT / top).rglob("*.py")
)
FORMER = {"evergreen.scoring"}  # names that models which are registered import
# What is a class of a library's own class has to import the library.
OF_A_LIBRARY = {
    "evergreen.models.class_activation",
    "evergreen.models.cnn",
    "evergreen.models.distance",
    "evergreen.models.pretrained",
    "evergreen.models.recurrent",
    "evergreen.models.muon",
    "evergreen.registry.artifacts",
    "evergreen.serving.pyfunc",
    "evergreen.training.callbacks",
}


def imports(module: str) -> Iterator[str]:
    """The modules of this project that a module imports, inside functions and for type checking too."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name:
                yield name


def rank(module: str) -> int:
    """How far down a module stands: `evergreen`'s own modules, its packages in their order, `tasks`, `flows`."""
    top, *rest = module.split(".")
    if top != "evergreen":
        return len(PACKAGES) + (1 if top == "tasks" else 2)
    place = next((name for name in (".".join(rest[:2]), *rest[:1]) if name in PACKAGES), None)
    return PACKAGES.index(place) + 1 if place else 0


def test_every_package_has_its_place_in_the_order() -> None:
    assert sorted(path.parent.name for path in (ROOT / "evergreen").glob("*/__init__.py")) == sorted(
        name for name in PACKAGES if "." not in name
    )


@pytest.mark.parametrize("module", [module for module in MODULES if module not in FORMER])
def test_a_module_imports_only_what_stands_above_its_package(module: str) -> None:
    below = [name for name in imports(module) if rank(name) > rank(module)]
    assert not below, f"{module} imports {', '.join(below)}, which stand below it"


@pytest.mark.parametrize("package", [path.parent for path in sorted((ROOT / "evergreen").rglob("__init__.py"))], ids=str)
def test_a_package_initializer_imports_nothing(package: Path) -> None:
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_importing_a_module_loads_no_large_library() -> None:
    """Commands that need none of them answer at once."""
    large = (
        "tensorflow",
        "keras",
        "mlflow",
        "prefect",
        "great_expectations",
        "dvc",
        "sklearn",
        "pandas",
        "scipy",
        "matplotlib",
    )
    modules = [module for module in MODULES if module.startswith("evergreen.") and module not in OF_A_LIBRARY]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules!r}]; print([m for m in {large!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]", done.stdout
