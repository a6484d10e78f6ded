"""The project as it is shipped, whatever this checkout has been used for.

Using a checkout changes files that git tracks: `evergreen new` adds a scenario to `scenarios/` and `prefect.yaml`, `evergreen
run` writes `data.dvc`, `dvc.lock` and `dvc.yaml`, `evergreen tune --apply` changes a scenario. Tests start from none of that.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SCENARIOS = ("agriculture", "cifar10", "inspection", "medical", "quickstart", "retail", "security", "traffic")
# The version of the quickstart's data: the digits are the same bit for bit on every machine.
DATA_DVC = """\
outs:
- md5: b091d6503623e4d5304a55f870b9254b.dir
  size: 169902
  nfiles: 1
  hash: md5
  path: data
"""
WRITTEN_BY_USE = ("data.dvc", "dvc.lock", "dvc.yaml", "prefect.yaml", "dvc_plots")


@cache
def shipped() -> Path:
    """A folder with the settings as shipped: `scenarios/`, `dvc.yaml`, `prefect.yaml`, `data.dvc`, `.dvcignore`, `.dvc/config`.
    Read it, or copy from it; never change it."""
    folder = Path(tempfile.mkdtemp(prefix="evergreen-shipped-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "scenarios").mkdir()
    for name in SCENARIOS:
        (folder / "scenarios" / f"{name}.yaml").write_bytes(_committed(f"scenarios/{name}.yaml"))
    (folder / "dvc.yaml").write_bytes(
        (ROOT / "evergreen" / "data" / "pipeline.yaml").read_bytes()
    )  # the others' first runs add theirs
    (folder / "prefect.yaml").write_bytes(_of_shipped_scenarios((ROOT / "prefect.yaml").read_bytes()))
    (folder / "data.dvc").write_text(DATA_DVC)
    (folder / ".dvc").mkdir()
    for name in (".dvcignore", ".dvc/config"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def copy_project(folder: Path) -> Path:
    """Copy into `folder` what git tracks here, and what it would track, as it is shipped."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    for name in map(os.fsdecode, filter(None, listed.split(b"\0"))):
        source, target = ROOT / name, folder / name
        if source.is_file() and name.partition("/")[0] not in ("scenarios", *WRITTEN_BY_USE):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    shutil.copytree(shipped(), folder, dirs_exist_ok=True)
    return folder


def _committed(name: str) -> bytes:
    """A file as git's HEAD has it; as it is here where this is no git repository."""
    found = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True)
    return found.stdout if found.returncode == 0 else (ROOT / name).read_bytes()


def _of_shipped_scenarios(document: bytes) -> bytes:
    """A `prefect.yaml` without the deployments of other scenarios, otherwise byte for byte."""
    head, *entries = re.split(rb"(?m)^(?=  - name: )", document)
    return head + b"".join(entry for entry in entries if _name(entry) in SCENARIOS)


def _name(entry: bytes) -> str:
    return entry.splitlines()[0].partition(b": ")[2].decode().strip()
