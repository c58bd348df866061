"""What this device would choose if it were asked now, and why. Loads nothing."""

from collections.abc import Iterator

import msgspec

from edge_runtime.checkup.finding import Finding
from edge_runtime.checkup.machine import available_bytes
from edge_runtime.checkup.models import how, num_bytes
from edge_runtime.checkup.verifier import Reached
from edge_runtime.knobs import Knobs
from edge_runtime.parts import DEFAULT_DRAFTER, DEFAULT_TARGET, drafting_model
from edge_runtime.tuning.stored import Tuned
from outrider import catalog
from outrider.engines.machine import num_physical_cores, processor
from outrider.errors import NotHere, OutriderError, UnknownModel
from outrider.manifest import ModelFolder

__all__ = ["Choice", "advise"]


class Choice(msgspec.Struct):
    mode: str  # "hybrid", "local", or "none": nothing can answer
    target: str = ""
    drafter: str = ""
    num_threads: int = 0
    why: list[str] = []


def advise(
    reached: Reached | None, target: str | None, drafter: str, threads: int, tuned: Tuned | None
) -> tuple[Choice, list[Finding]]:
    """The choice, and what about it could be better. Raises what `find` does for a drafter. `threads`: 0 for the
    physical cores; `tuned`: the setting that is in use."""
    name = target or DEFAULT_TARGET
    try:
        here, lacking = catalog.find(name), ""
    except OutriderError as error:
        here, lacking = None, str(error)
    choice = Choice("none")
    if reached is not None:
        choice.mode, choice.target = "hybrid", target or reached.target[:12]
        choice.why.append("the verifier answers, so it verifies what this device drafts")
        drafting, loaded = _choose_drafter(choice, drafter, tuned, reached.vocabulary), []
    elif here is not None:
        choice.mode, choice.target = "local", here.name
        choice.why.append(f"no verifier is in use, and {here.name} is here")
        drafting, loaded = _choose_drafter(choice, drafter, tuned, here.manifest.tokenizer_fingerprint), [here]
    else:
        choice.why.append(f"no verifier is in use, and the target {name} is not here")
        return choice, [Finding("target", "broken", lacking, how(name))]
    knobs = tuned.knobs if tuned else Knobs()
    chosen = threads or (knobs.verifier_threads if reached is None else knobs.drafter_threads)
    choice.num_threads = chosen or num_physical_cores()
    if threads:
        choice.why.append("so many threads were asked for")
    elif chosen and tuned:
        choice.why.append(f"the tuned setting {tuned.name} has so many threads")
    else:
        choice.why.append("a thread for each physical core: two on one core share what passes need")
    return choice, [*_memory([*loaded, *([drafting] if drafting else [])]), *(_profile(loaded[0]) if loaded else [])]


def _choose_drafter(choice: Choice, drafter: str, tuned: Tuned | None, vocabulary: str) -> ModelFolder | None:
    """Says who drafts, as `open_drafter` chooses. Gives the model that it loads, if any."""
    if drafter != "auto" or tuned:
        choice.drafter = tuned.knobs.drafter if tuned else drafter
        choice.why.append(f"the tuned setting {tuned.name} has it draft" if tuned else f"{drafter} was asked for")
        model = drafting_model(choice.drafter)
        return catalog.find(model) if model else None
    try:
        default = catalog.find(DEFAULT_DRAFTER)
    except (NotHere, UnknownModel):
        default = None
    if default is None:
        reason = f"{DEFAULT_DRAFTER} is not here"
    elif default.manifest.tokenizer_fingerprint != vocabulary:
        default, reason = None, f"{DEFAULT_DRAFTER} has another vocabulary than the target"
    else:
        reason = f"{DEFAULT_DRAFTER} has the target's vocabulary"
    choice.drafter = f"lookup, then {DEFAULT_DRAFTER}" if default else "lookup"
    choice.why.append(f"drafts from the text itself cost nothing; {reason}")
    return default


def _memory(folders: list[ModelFolder]) -> Iterator[Finding]:
    needed, available = sum(map(num_bytes, folders)), available_bytes()
    if folders and available is not None and needed > available:
        names = " and ".join(folder.name for folder in folders)
        detail = f"{names} are {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB are available; end other programs"
        yield Finding("memory", "note", detail)


def _profile(target: ModelFolder) -> Iterator[Finding]:
    if not any(key.startswith(processor()) for key in target.manifest.profiles):
        detail = f"{target.name} was never measured on this machine; its first use does that, and takes a while"
        yield Finding("profile", "note", detail, f"outrider profile {target.name}")
