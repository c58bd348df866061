"""What a request's `model` chooses: not a model but a way of answering, each with the runtime that answers so.

Knows no HTTP. The runtimes share one drafter and one target; nothing is loaded twice.
"""

from dataclasses import dataclass

from edge_runtime.runtime import Runtime
from outrider.errors import UnknownModel

__all__ = ["Mode", "Modes"]

WHY_NOT = {
    "hybrid": "hybrid needs a verifier, and this server has none; start it with --verifier, or ask for auto",
    "cloud": "cloud needs a verifier, and this server has none; start it with --verifier, or ask for auto",
    "local": "local needs a model that drafts, and this server has none; start it with --drafter, or ask for auto",
}


@dataclass(frozen=True, slots=True)
class Mode:
    """`has_target`: it may be verified, what is answered so. `is_final`: nothing is ever taken back."""

    name: str
    runtime: Runtime
    has_target: bool = True


class Modes:
    """`runtime` has a target here, or with `is_remote` behind a link. `model` is the target's name, where it has one.

    The runtime stays the caller's to close.
    """

    def __init__(self, runtime: Runtime, *, is_remote: bool, model: str = "") -> None:
        found = [Mode("auto", runtime)]
        if is_remote:
            found += [Mode("hybrid", runtime), Mode("cloud", runtime.without_drafts())]
            if runtime.drafter is not None and runtime.drafter.can_answer:
                found.append(Mode("local", runtime.alone(), has_target=False))
        else:
            found.append(Mode("local", runtime))
        if model and model not in (*WHY_NOT, "auto"):
            found.append(Mode(model, runtime))
        self._modes = {mode.name: mode for mode in found}
        self.has_link = is_remote

    @property
    def names(self) -> list[str]:
        return list(self._modes)

    @property
    def is_cut(self) -> bool:
        """Whether the way to the verifier is cut on purpose."""
        return self._modes["auto"].runtime.link_switch.is_cut

    def cut(self, *, is_cut: bool) -> None:
        """Have the way to the verifier fail as if the network were gone, or be there again."""
        for mode in self._modes.values():
            mode.runtime.link_switch.is_cut = is_cut
            mode.runtime.network_changed()

    def find(self, name: str) -> Mode:
        """Raises UnknownModel."""
        mode = self._modes.get(name)
        if mode is None:
            sentence = WHY_NOT.get(name) or f"there is no model of that name; ask for one of {', '.join(self._modes)}"
            error = UnknownModel(sentence)
            error.http_status = 404
            raise error
        return mode
