"""Python imports this as it starts, where a test has put the folder on PYTHONPATH: a command of the project that needs the
large libraries is handed over to the process that has them (`tests.support.prepared`). This process stays, passes signals on,
and ends as the command does."""

import os
import sys


def _module() -> str | None:
    """What would run here, if it is one of the commands that are handed over."""
    given = sys.orig_argv[1:]
    if given[:1] == ["-m"]:
        module = given[1]
        if module.startswith(("tasks.", "prefect.runner.", "prefect.engine")):
            return module
        if module == "uvicorn":
            return module if "PREFECT__SERVER_EPHEMERAL" in os.environ else None
        return module if module == "flows.cli" and given[2:3] != ["up"] else None
    return "flows.cli" if given and os.path.basename(given[0]) == "evergreen" and given[1:2] != ["up"] else None


if "EVERGREEN_PREPARED" in os.environ and (_requested := _module()):
    _folder = os.path.dirname(os.path.abspath(__file__))
    sys.path.insert(0, _folder)
    import handed_over

    sys.path.remove(_folder)
    _arguments = sys.orig_argv[3:] if sys.orig_argv[1] == "-m" else sys.orig_argv[2:]
    handed_over.run(os.environ["EVERGREEN_PREPARED"], _requested, _arguments)
