"""Which knobs are worth turning for a target here, and their values. Reads the store; loads no model.

What has no effect is not searched: a drafter's threads where there is no model, a draft cap where nobody takes turns.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from edge_runtime.checkup.models import num_bytes
from edge_runtime.knobs import LINKED, Knobs
from edge_runtime.parts import AFTER_LOOKUP, auto_drafter, drafting_model
from outrider import catalog
from outrider.engines.machine import num_physical_cores, processor
from outrider.errors import OutriderError
from outrider.manifest import ModelFolder

__all__ = ["Space", "link_space", "pair_space"]

LARGEST_SHARE = 0.5  # of the target's bytes: a drafter that is larger takes too long to draft
MAX_DRAFTS = 31
PATIENCES_MS = [0, 50, 100, 200, 400]  # a useful wait is at least a round trip and some drafts
BESIDE_AHEAD = 16  # guesses, where drafter and target of one device run side by side
WITH_ROOM = " sequences"  # how the profile's key of an engine with room for all sizes ends


@dataclass(frozen=True)
class Space:
    """`defaults` are what is used today, spelt out: one of the points of the space."""

    defaults: Knobs
    drafters: list[str]
    drafter_threads: list[int] = field(default_factory=lambda: [0])
    verifier_threads: list[int] = field(default_factory=lambda: [0])
    max_ahead: list[int] = field(default_factory=lambda: [0])
    num_cores: int = 1
    patience_ms: list[int] = field(default_factory=lambda: [0])

    def first(self) -> list[Knobs]:
        """The defaults, then every drafter with all else as it is by default."""
        others = [name for name in self.drafters if name != self.defaults.drafter]
        return [self.defaults, *(msgspec.structs.replace(self.defaults, drafter=name) for name in others)]

    def suggest(self, trial: Any) -> Knobs:
        """The point that an Optuna trial asks for."""

        def one_of(name: str, values: list[Any]) -> Any:
            return trial.suggest_categorical(name, values) if len(values) > 1 else values[0]

        defaults = self.defaults
        drafter = one_of("drafter", self.drafters)
        verifier_threads = one_of("verifier_threads", self.verifier_threads)
        if drafter == "none":
            return msgspec.structs.replace(defaults, drafter=drafter, verifier_threads=verifier_threads)
        has_model = bool(drafting_model(drafter))
        threads = one_of("drafter_threads", self.drafter_threads) if has_model else defaults.drafter_threads
        max_ahead = self.max_ahead[0]
        if self.max_ahead[0] or (has_model and verifier_threads + threads <= self.num_cores):
            max_ahead = one_of("max_ahead", self.max_ahead)
        max_drafts = defaults.max_drafts if max_ahead else trial.suggest_int("max_drafts", 2, MAX_DRAFTS)
        min_reach = trial.suggest_float("min_reach", 0.0, 0.8, step=0.05)
        patience_ms = one_of("patience_ms", self.patience_ms)
        return Knobs(drafter, threads, verifier_threads, max_drafts, max_ahead, round(min_reach, 2), patience_ms)


def pair_space(target: ModelFolder) -> Space:
    """For a target on this device. Verifier threads are searched where a profile for them is stored: measuring one
    takes minutes."""
    cores = num_physical_cores()
    measured = {
        profile.num_threads
        for key, profile in target.manifest.profiles.items()
        if profile.machine.startswith(f"{processor()}, ") and key.endswith(WITH_ROOM) and profile.num_threads <= cores
    }
    defaults = Knobs(auto_drafter(target), cores, cores)
    return Space(
        defaults,
        _drafters(defaults.drafter, target, target.manifest.fingerprint, LARGEST_SHARE * num_bytes(target)),
        _thread_counts(cores),
        sorted({cores, *measured}, reverse=True),
        [0, BESIDE_AHEAD],
        cores,
    )


def link_space(vocabulary: ModelFolder, target: str) -> Space:
    """For a target behind a link, named by its fingerprint, of the vocabulary of this folder."""
    cores = num_physical_cores()
    defaults = msgspec.structs.replace(LINKED, drafter=auto_drafter(vocabulary), drafter_threads=cores)
    drafters = _drafters(defaults.drafter, vocabulary, target, float("inf"))
    return Space(defaults, drafters, _thread_counts(cores), [0], [LINKED.max_ahead, 8, 16, 32], cores, PATIENCES_MS)


def _thread_counts(cores: int) -> list[int]:
    return sorted({cores, *(1 << bit for bit in range(cores.bit_length()) if 1 << bit < cores)}, reverse=True)


def _drafters(default: str, vocabulary: ModelFolder, target: str, most_bytes: float) -> list[str]:
    """The most promising first: those of the target's own vocabulary, after lookup. The default is there, whatever
    its size."""
    own: list[str] = []
    foreign: list[str] = []
    for name in catalog.stored():
        try:
            folder = catalog.find(name)
            is_small = num_bytes(folder) <= most_bytes
        except (OutriderError, OSError):
            continue  # a folder that is damaged; the doctor tells of it
        if is_small and folder.manifest.fingerprint != target:
            is_own = folder.manifest.tokenizer_fingerprint == vocabulary.manifest.tokenizer_fingerprint
            (own if is_own else foreign).append(name)
    models = [*own, *foreign]
    found = ["none", "lookup", *(AFTER_LOOKUP + name for name in models), *models]
    return found if default in found else [*found, default]
