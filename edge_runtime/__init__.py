"""Drafts ahead on the device and serves the app.

What an app needs is here by name, and is imported when it is asked for: `import edge_runtime` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_runtime.answer import Piece
    from edge_runtime.events import Alone, Finished, Retracted, Standing, Token
    from edge_runtime.journal import Journal
    from edge_runtime.options import Options, TokenIds
    from edge_runtime.report import Report
    from edge_runtime.runtime import Runtime
    from outrider.choice import SamplingParams
    from outrider.constraint import Grammar
    from outrider.engines import EngineSettings
    from outrider.search import SearchParams

__all__ = [
    "Alone",
    "EngineSettings",
    "Finished",
    "Grammar",
    "Journal",
    "Options",
    "Piece",
    "Report",
    "Retracted",
    "Runtime",
    "SamplingParams",
    "SearchParams",
    "Standing",
    "Token",
    "TokenIds",
]

HOMES = {
    "Alone": "edge_runtime.events",
    "EngineSettings": "outrider.engines",
    "Finished": "edge_runtime.events",
    "Grammar": "outrider.constraint",
    "Journal": "edge_runtime.journal",
    "Options": "edge_runtime.options",
    "Piece": "edge_runtime.answer",
    "Report": "edge_runtime.report",
    "Retracted": "edge_runtime.events",
    "Runtime": "edge_runtime.runtime",
    "SamplingParams": "outrider.choice",
    "SearchParams": "outrider.search",
    "Standing": "edge_runtime.events",
    "Token": "edge_runtime.events",
    "TokenIds": "edge_runtime.options",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)
