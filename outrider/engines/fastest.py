"""Which library runs an ONNX target fastest on this machine's CPU: timed once, then known from the stored profiles.

It is chosen by what a target does: plain steps, and passes that check drafts. A drafter makes passes of one, for which
ONNX Runtime was the faster one wherever it was measured; whoever opens one without asking here gets that.
"""

from dataclasses import replace

from outrider.engines import EngineSettings
from outrider.engines.profile import load_or_time
from outrider.errors import EngineError, InvalidModel, MissingExtra
from outrider.manifest import ModelFolder
from outrider.progress import Progress, silent

__all__ = ["fastest"]

STEP, CHECK = 2, 8  # rows of the passes compared: the smallest whose bits larger ones share, and a usual check


def fastest(folder: ModelFolder, settings: EngineSettings, progress: Progress = silent) -> EngineSettings:
    """`settings` with the provider "auto" replaced by the one to take for this target.

    What is not installed or cannot run this graph is left out. Raises what opening the model on the CPU does.
    """
    if settings.provider != "auto" or folder.manifest.format != "onnx":
        return settings
    on_cpu, other = replace(settings, provider="cpu"), replace(settings, provider="openvino")
    try:
        other_ms = _turn_ms(folder, other, progress)
    except (MissingExtra, InvalidModel, EngineError):
        return on_cpu
    return other if other_ms < _turn_ms(folder, on_cpu, progress) else on_cpu


def _turn_ms(folder: ModelFolder, settings: EngineSettings, progress: Progress) -> float:
    cost_ms = load_or_time(folder, settings, (STEP, CHECK), progress)
    return cost_ms[STEP] + cost_ms[CHECK]
