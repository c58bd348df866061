"""`outrider WORDS` in this process, as its own would run it."""

import sys

import pytest

from edge_runtime.cli import main


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Its exit status."""
    monkeypatch.setattr(sys, "argv", ["outrider", *words])
    try:
        main()
    except SystemExit as stop:
        return stop.code
    return 0
