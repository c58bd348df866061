"""Which library runs an ONNX target fastest on this machine's CPU: timed once, then known from the stored profiles.

It is chosen by what a target does: plain steps, and passes that check drafts. A drafter makes passes of one, for which
ONNX Runtime was the faster one wherever it was measured; whoever opens one without asking here gets that.
"""

from collections.abc import Mapping
from dataclasses import replace

from outrider.engines import EngineSettings
from outrider.engines.profile import load_or_time
from outrider.errors import EngineError, InvalidModel, MissingExtra
from outrider.manifest import ModelFolder
from outrider.progress import Progress, silent

__all__ = ["fastest", "turn_ms"]

COMPARED = (2, 8)  # rows: the smallest pass whose bits larger ones share, and a usual check of drafts


def fastest(folder: ModelFolder, settings: EngineSettings, progress: Progress = silent) -> EngineSettings:
    """`settings` with the provider "auto" replaced by the one to take for this target.

    What is not installed or cannot run this graph is left out. Raises what opening the model on the CPU does.
    """
    if settings.provider != "auto" or folder.manifest.format != "onnx":
        return settings
    on_cpu, other = replace(settings, provider="cpu"), replace(settings, provider="openvino")
    try:
        other_ms = turn_ms(load_or_time(folder, other, COMPARED, progress))
    except (MissingExtra, InvalidModel, EngineError):
        return on_cpu
    return other if other_ms < turn_ms(load_or_time(folder, on_cpu, COMPARED, progress)) else on_cpu


def turn_ms(cost_ms: Mapping[int, float]) -> float:
    """By what two ways to run a target are compared. `cost_ms`: milliseconds of a pass over k tokens."""
    return sum(cost_ms[size] for size in COMPARED)
