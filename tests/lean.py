"""Runs `outrider` several times in one process that has only what some requirements install: `python lean.py JOB`.

The job is JSON: the command lines, and the modules to hide. The answer is JSON, too: status, output, errors of each.
Imports nothing of the project before the modules are hidden, so that it can run where the tests are not installed.
"""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Set
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


def hide(names: Set[str]) -> None:
    """From now on these modules are found as little as those that are not installed."""
    find = PathFinder.find_spec

    def find_others(fullname: str, *rest: Any) -> ModuleSpec | None:
        return None if fullname.partition(".")[0] in names else find(fullname, *rest)

    PathFinder.find_spec = find_others  # type: ignore[method-assign,assignment]


def run(main: Callable[[], None], arguments: list[str]) -> tuple[int, str, str]:
    from edge_runtime.cli.output import console

    sys.argv = ["outrider", *arguments]
    out, err = io.StringIO(), io.StringIO()
    console.file = err
    status: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            status = stop.code
    return int(status or 0), out.getvalue(), err.getvalue()


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    hide(frozenset(job["hidden"]))
    from edge_runtime.cli import main

    json.dump([run(main, arguments) for arguments in job["commands"]], sys.__stdout__)
