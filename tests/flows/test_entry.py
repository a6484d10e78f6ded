"""The command's first moment."""

from __future__ import annotations

import sys

import pytest

from flows.entry import main


def test_ctrl_c_while_the_command_is_still_being_loaded_ends_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        """A finder in which Ctrl-C is pressed."""

        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "flows.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "flows.cli", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted, *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capfd.readouterr().err == "evergreen: Stopped; run the same command again to go on.\n"
