"""Who answers in a chat: a runtime for each way to answer, opened when it is asked for, one at a time.

Knows models and links by name; no conversation and no screen.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edge_runtime.links import LinkSwitch
from edge_runtime.parts import DEFAULT_TARGET
from edge_runtime.runtime import Runtime
from outrider import catalog
from outrider.errors import InvalidParameter, NotHere

__all__ = ["MODES", "Answerers", "Modes"]

MODES = {
    "hybrid": "this device drafts, the verifier verifies; without it the drafter answers alone, provisionally",
    "strict": "as hybrid, but verified words or none",
    "cloud": "the verifier's target, without drafts",
    "local": "target and drafter on this device; without a target here the drafter alone, provisionally",
}
ALONE = "mode local asks no verifier, and the target is not here; choose another with /mode"


@dataclass(frozen=True)
class Answerers:
    """How to open each: the pair on this device, a drafter with the verifier, the verifier alone."""

    pair: Callable[[], Runtime]
    hybrid: Callable[[], Runtime] | None  # None: no verifier was named
    stream: Callable[[], Runtime] | None
    target: str | None


class Modes:
    """One of MODES at a time. Opens what it needs; close it."""

    def __init__(self, answerers: Answerers, mode: str | None = None) -> None:
        """Raises what `choose` does; without a `mode`, hybrid where there is a verifier."""
        self._answerers = answerers
        self._opened = ""  # what kind the runtime is
        self._runtime: Runtime | None = None
        self._is_cut = False
        self._is_alone = False
        self.mode = ""
        self.choose(mode or ("hybrid" if answerers.hybrid else "local"))

    @property
    def runtime(self) -> Runtime:
        assert self._runtime is not None
        return self._runtime

    @property
    def has_link(self) -> bool:
        return self._opened != "pair" and not self._is_alone

    @property
    def is_cut(self) -> bool:
        """Whether the user cut the link, where there is one."""
        return self._is_cut and self.has_link

    def choose(self, mode: str) -> None:
        """Raises InvalidParameter, and what opening a model does; then the mode is the one before."""
        if mode not in MODES:
            raise InvalidParameter(f"there is no mode {mode!r}; choose {', '.join(MODES)}")
        kind = {"hybrid": "hybrid", "strict": "hybrid", "cloud": "stream", "local": "pair"}[mode]
        is_alone = kind == "pair" and self._answerers.hybrid is not None and not self._has_target()
        if is_alone:
            kind = "hybrid"
        opening: Callable[[], Runtime] | None = getattr(self._answerers, kind)
        if opening is None:
            raise InvalidParameter(f"mode {mode} needs a verifier; begin the chat with --verifier ADDRESS")
        if kind != self._opened:
            runtime = opening()
            self.close()
            self._runtime, self._opened = runtime, kind
        self.mode, self._is_alone = mode, is_alone
        self._switch()

    def cut(self, *, is_cut: bool) -> None:
        """Cut the link on purpose, or switch it on again. Raises InvalidParameter where there is none."""
        if not self.has_link:
            raise InvalidParameter(f"mode {self.mode} uses no link; choose another with /mode")
        self._is_cut = is_cut
        self._switch()

    def close(self) -> None:
        if self._runtime is not None:
            self._runtime.close()

    def _switch(self) -> None:
        switch = self.runtime.link_switch
        was_cut = switch.is_cut
        switch.reason = ALONE if self._is_alone else LinkSwitch.reason
        switch.is_cut = self._opened != "pair" and (self._is_cut or self._is_alone)
        if was_cut and not switch.is_cut:
            self.runtime.network_changed()

    def _has_target(self) -> bool:
        try:
            catalog.find(self._answerers.target or DEFAULT_TARGET)
        except NotHere:
            return False
        return True
