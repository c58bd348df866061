"""What `tune` has kept for this target and machine, and whether it can be used. Reads files only."""

from collections.abc import Iterator

from edge_runtime.checkup.finding import Finding
from edge_runtime.parts import DEFAULT_TARGET
from edge_runtime.tuning.stored import AUTO, choose
from outrider import catalog
from outrider.errors import OutriderError

__all__ = ["check_tuned"]


def check_tuned(target: str | None, verifier: str | None) -> Iterator[Finding]:
    try:
        is_here = verifier is None or target is not None
        fingerprint = catalog.find(target or DEFAULT_TARGET).manifest.fingerprint if is_here else ""
    except OutriderError:
        return  # that the target is not here is told elsewhere
    tuned, notice = choose(AUTO, target=fingerprint, verifier=verifier or "")
    if tuned is not None:
        gain = f"{1 - tuned.evidence.ratio:.0%} less {tuned.goal} than the defaults"
        yield Finding("tuned", "ok", f"{tuned.name} is used: drafter {tuned.knobs.drafter}, {gain}")
    elif notice:
        yield Finding("tuned", "note", notice, "outrider tune")
    else:
        yield Finding("tuned", "ok", "nothing is kept for this target here; the defaults are used")
