"""What is tested does not depend on what this checkout has been used for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.flows.conftest import clone
from tests.support.shipped import DATA_DVC, SCENARIOS, shipped

FILES = [*(f"scenarios/{name}.yaml" for name in SCENARIOS), "dvc.yaml", "prefect.yaml", "data.dvc", ".dvcignore", ".dvc/config"]


def use(checkout: Path) -> None:
    """Change every file that `evergreen new`, `run`, `deploy` and `tune --apply` change."""
    mine = (checkout / "scenarios" / "quickstart.yaml").read_text().replace("name: quickstart", "name: mine")
    (checkout / "scenarios" / "mine.yaml").write_text(mine)
    pipeline = (checkout / "dvc.yaml").read_text()
    (checkout / "dvc.yaml").write_text(
        pipeline.replace("      quickstart:\n", "      mine:\n        plot: {}\n      quickstart:\n")
    )
    deployments = (checkout / "prefect.yaml").read_text()
    (checkout / "prefect.yaml").write_text(deployments + "  - name: mine\n    entrypoint: flows/training.py:training\n")
    (checkout / "data.dvc").write_text(DATA_DVC.replace("b091d6503623", "1234567890ab"))
    (checkout / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    tuned = checkout / "scenarios" / "quickstart.yaml"
    tuned.write_text(tuned.read_text().replace("epochs: ", "epochs: 1"))


def test_tests_start_from_the_project_as_shipped_in_a_checkout_that_has_been_used(tmp_path: Path) -> None:
    used = clone(tmp_path / "used").root
    use(used)
    ask = "from pathlib import Path; from tests.support.shipped import copy_project; copy_project(Path({target!r}))"
    copied = tmp_path / "copied"
    subprocess.run([sys.executable, "-c", ask.format(target=str(copied))], cwd=used, check=True, timeout=120)
    assert sorted(path.stem for path in (copied / "scenarios").iterdir()) == sorted(SCENARIOS)
    assert not (copied / "dvc.lock").exists()
    assert {name for name in FILES if (copied / name).read_bytes() != (shipped() / name).read_bytes()} == set()
    assert (copied / "flows" / "cli.py").is_file()
