"""The code that is stored with a registered model: every module that prediction needs, as a package of its own.

MLflow prefers an installed `evergreen` to the copy inside a model, and two models may have been registered from different
versions of it. The copies are therefore in a top-level package whose name contains a digest of their content.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from evergreen.kinds.base.codec import Codec

PYFUNC = "evergreen.serving.pyfunc"


def modules_needed(names: Iterable[str]) -> dict[str, Path]:
    """The files that some modules need from their own top-level packages, by module name: their own, and those of every module
    that they import, directly or not, including imports inside functions."""
    ahead = list(names)
    tops = {name.partition(".")[0] for name in ahead}
    needed: dict[str, Path] = {}
    while ahead:
        name = ahead.pop()
        if name.partition(".")[0] not in tops or name in needed:
            continue
        file = _file(name)
        if file is None:  # a name within a module
            continue
        needed[name] = file
        ahead.append(name.rpartition(".")[0])
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                ahead += [node.module, *(f"{node.module}.{imported.name}" for imported in node.names)]
            elif isinstance(node, ast.Import):
                ahead += [imported.name for imported in node.names]
    return needed


def write_served_code(codec: type[Codec], folder: Path) -> tuple[Path, Path]:
    """Write the package, and the script that MLflow runs when it loads the model.

    Args:
        codec: the codec to serve with.
        folder: an empty folder.

    Returns:
        The package's folder and the script.
    """
    needed = modules_needed([PYFUNC, codec.__module__])
    tops = sorted({name.partition(".")[0] for name in needed})
    digest = hashlib.sha256(b"".join(name.encode() + needed[name].read_bytes() for name in sorted(needed)))
    package = f"evergreen_served_{digest.hexdigest()[:12]}"
    imports = re.compile(rf"(?m)^(\s*from )({'|'.join(map(re.escape, tops))})(?=[. ])")
    for name, file in needed.items():
        path = folder / package / Path(*name.split("."))
        copy = path / "__init__.py" if file.name == "__init__.py" else path.with_suffix(".py")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(imports.sub(rf"\1{package}.\2", file.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / package / "__init__.py").touch()
    script = folder / "model.py"
    script.write_text(
        f"from {package}.{codec.__module__} import {codec.__name__}\n"
        f"from {package}.{PYFUNC} import serve\n\n"
        f"serve({codec.__name__})\n",
        encoding="utf-8",
    )
    return folder / package, script


@contextlib.contextmanager
def importable(package: Path) -> Iterator[None]:
    """Make the served code importable within the block: MLflow runs the script once before it stores the code."""
    sys.path.insert(0, str(package.parent))
    try:
        yield
    finally:
        sys.path.remove(str(package.parent))
        for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
            del sys.modules[name]


def _file(module: str) -> Path | None:
    try:
        found = importlib.util.find_spec(module) if module else None
    except ModuleNotFoundError:
        return None
    return Path(found.origin) if found is not None and found.origin and found.origin.endswith(".py") else None
