"""Files and folders change places whole, and a lock has one holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from evergreen.errors import WrongUse
from evergreen.workspace import Workspace, replace_file, replace_folder


def test_the_checkout_is_found_from_a_folder_inside_it(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERGREEN_ROOT", raising=False)
    inside = workspace.root / "a" / "b"
    inside.mkdir(parents=True)
    assert Workspace.find(inside) == workspace


def test_outside_a_checkout_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERGREEN_ROOT", raising=False)
    with pytest.raises(WrongUse, match="EVERGREEN_ROOT"):
        Workspace.find(tmp_path)


def test_a_replaced_file_is_never_half_of_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_folder_whose_writing_fails_is_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "splits"
    with replace_folder(folder) as new:
        (new / "a").write_text("old")
    with pytest.raises(RuntimeError), replace_folder(folder) as new:
        (new / "a").write_text("half")
        raise RuntimeError
    assert (folder / "a").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["splits"]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "splits"
    code = f"""
        import os, signal
        from pathlib import Path
        from evergreen.workspace import replace_folder
        with replace_folder(Path({str(folder)!r})) as new:
            (new / "a").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)]).returncode == -signal.SIGKILL
    assert not folder.exists()
    with replace_folder(folder) as new:
        (new / "a").write_text("whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["splits"]


HOLD = """
    import sys, time
    from pathlib import Path
    from evergreen.workspace import Workspace
    with Workspace(Path(sys.argv[1])).lock("data"):
        print("held", flush=True)
        time.sleep(60)
"""


def test_the_second_to_want_a_lock_learns_who_holds_it_and_gets_it_when_the_holder_is_killed(workspace: Workspace) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(workspace.root)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(WrongUse, match=f"held by process {holder.pid}"), workspace.lock("data", timeout_seconds=0.1):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with workspace.lock("data", timeout_seconds=5):
            pass
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout:
            holder.stdout.close()


@pytest.mark.parametrize("name", ["job_feature%2Fx", "what?now", "issue #10", "100%"])
def test_a_path_that_databases_misread_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    root = tmp_path / name / "clone"
    (root / "scenarios").mkdir(parents=True)
    (root / "dvc.yaml").touch()
    with pytest.raises(WrongUse, match="path") as caught:
        Workspace.find(root)
    assert "Rename the folder" in str(caught.value)
    assert sorted(path.name for path in root.iterdir()) == ["dvc.yaml", "scenarios"]


@pytest.mark.parametrize("name", ["with space", "it's", 'a "quoted" one', "Bäckerei 面包", "a&b=c;d", "+", "x" * 200])
def test_other_odd_paths_are_no_hindrance_to_the_registrys_database(tmp_path: Path, name: str) -> None:
    import sqlite3

    from sqlalchemy import create_engine, text

    root = tmp_path / name / "clone"
    (root / "scenarios").mkdir(parents=True)
    (root / "dvc.yaml").touch()
    link = tmp_path / "link"
    link.symlink_to(root)
    assert Workspace.find(link) == Workspace.find(root) == Workspace(root.resolve())
    with create_engine(f"sqlite:///{root}/mlflow.db").begin() as store:
        store.execute(text("CREATE TABLE here (x)"))
    with sqlite3.connect(root / "mlflow.db") as store_:
        assert store_.execute("SELECT name FROM sqlite_master").fetchall() == [("here",)]
