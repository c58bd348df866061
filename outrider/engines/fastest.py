"""Which library runs an ONNX target fastest on this machine's CPU: measured once, then known from the stored profiles.

It is chosen by what a target does: plain steps, and passes that check drafts. A drafter makes passes of one, for which
ONNX Runtime was the faster one wherever it was measured; whoever opens one without asking here gets that.
"""

from contextlib import closing
from dataclasses import replace

from outrider.engines import EngineSettings, backend, open_engine
from outrider.engines.profile import choose_class, load_or_measure, machine, turn_ms
from outrider.errors import InvalidModel, MissingExtra
from outrider.manifest import ModelFolder, Profile
from outrider.progress import Progress, silent

__all__ = ["fastest"]


def fastest(folder: ModelFolder, settings: EngineSettings, progress: Progress = silent) -> EngineSettings:
    """`settings` with the provider "auto" replaced by the one to take for this target.

    What is not installed or cannot run this graph is left out. Raises what opening the model on the CPU does.
    """
    if settings.provider != "auto" or folder.manifest.format != "onnx":
        return settings
    on_cpu, other = replace(settings, provider="cpu"), replace(settings, provider="openvino")
    try:
        profile = _profile(folder, other, progress)
    except (MissingExtra, InvalidModel):
        return on_cpu
    return min((on_cpu, _profile(folder, on_cpu, progress)), (other, profile), key=lambda each: _turn_ms(each[1]))[0]


def _turn_ms(profile: Profile) -> float:
    return turn_ms(profile, choose_class(profile))


def _profile(folder: ModelFolder, settings: EngineSettings, progress: Progress) -> Profile:
    """The stored one, of whatever context; else it is measured, and stored."""
    here = machine(backend(folder, settings), settings)
    for profile in folder.manifest.profiles.values():
        if profile.machine == here:
            return profile
    with closing(open_engine(folder, settings)) as engine:
        return load_or_measure(folder, engine, settings, progress)
