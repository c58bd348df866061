"""Drafts ahead on the device and serves the app.

What an app needs is here by name, and is imported when it is asked for: `import edge_runtime` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_runtime.answer import Piece
    from edge_runtime.events import Alone, Finished, Retracted, Token
    from edge_runtime.journal import Journal
    from edge_runtime.runtime import Runtime
    from outrider.choice import SamplingParams

__all__ = ["Alone", "Finished", "Journal", "Piece", "Retracted", "Runtime", "SamplingParams", "Token"]

HOMES = {
    "Alone": "edge_runtime.events",
    "Finished": "edge_runtime.events",
    "Journal": "edge_runtime.journal",
    "Piece": "edge_runtime.answer",
    "Retracted": "edge_runtime.events",
    "Runtime": "edge_runtime.runtime",
    "SamplingParams": "outrider.choice",
    "Token": "edge_runtime.events",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)
