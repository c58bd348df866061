"""What `tune` has kept for this target and machine, and whether it is used. Reads files only."""

from collections.abc import Iterator

from edge_runtime.checkup.finding import Finding
from edge_runtime.tuning.stored import Tuned

__all__ = ["tell_tuned"]


def tell_tuned(tuned: Tuned | None, notice: str) -> Iterator[Finding]:
    """What `choose_for` gave."""
    if tuned is not None:
        gain = f"{1 - tuned.evidence.ratio:.0%} less {tuned.goal} than the defaults"
        yield Finding("tuned", "ok", f"{tuned.name} is used: drafter {tuned.knobs.drafter}, {gain}")
    elif notice:
        yield Finding("tuned", "note", notice, "outrider tune")
    else:
        yield Finding("tuned", "ok", "nothing that was kept is used here; the defaults are")
