"""Answers prompts with any setting, and measures what that takes: on this device, or with a verifier behind a link.

Engines stay open from setting to setting while there is memory for them; all that learns (paces, guards) begins anew
with each. What a drafter holds of the last answer is dropped before the next, so that no answer is known beforehand.
"""

import asyncio
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from cloud_verifier.pacing import UNKNOWN_COST
from cloud_verifier.target import LocalVerifier, open_verifier
from cloud_verifier.turn import PassReport
from edge_runtime.checkup.machine import available_bytes
from edge_runtime.checkup.models import num_bytes
from edge_runtime.drafters import CascadeDrafter, Drafter, LookupDrafter
from edge_runtime.energy import EnergyMeter
from edge_runtime.events import Token
from edge_runtime.knobs import Knobs, pace_of
from edge_runtime.links import InProcessLink, Link
from edge_runtime.parts import AFTER_LOOKUP, drafting_model, open_drafter
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from edge_runtime.tuning.goals import Sample
from edge_runtime.tuning.prompts import Prompt
from edge_runtime.tuning.search import Ask
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.manifest import ModelFolder
from outrider.progress import Progress, silent
from outrider.tokens import TextCodec
from outrider.worth import PassCost

__all__ = ["Workbench"]

SPARE_BYTES = 5e8  # left to everybody else
NOTHING = [{"role": "user", "content": "."}]


class Workbench:
    """`folder` is the target's; with `open_link` it is any of the target's vocabulary. Close it."""

    def __init__(
        self,
        folder: ModelFolder,
        settings: EngineSettings,
        max_tokens: int,
        progress: Progress = silent,
        open_link: Callable[[], Link] | None = None,
    ) -> None:
        self._folder, self._settings, self._max_tokens, self._progress = folder, settings, max_tokens, progress
        self._open_link = open_link
        self._codec = TextCodec(folder)
        self._open: dict[tuple[str, int], LocalVerifier | Drafter] = {}  # by model and threads, least lately used first
        self._passes: list[PassReport] = []  # of the answer under way, with a verifier on this device
        self._in_use: set[tuple[str, int]] = set()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="drafter")
        self._numbers = itertools.count()
        self._has_joules = EnergyMeter().read().source == "rapl"  # a battery's steps are too coarse for an answer

    @property
    def energy_unit(self) -> str:
        """What `Sample.energy` is in. Over a link it is this device's alone."""
        return "joules" if self._has_joules else "core-seconds"

    def begin(self, knobs: Knobs) -> Ask:
        """The setting in force, as in an app that was just started. Raises OutriderError."""
        credential = f"setting {next(self._numbers)}"  # each has a guard of its own
        self._in_use.clear()
        verifier, _ = self._parts(knobs)
        pace = pace_of(knobs, verifier.pass_ms if verifier else None)
        pass_ms = PassCost(verifier.pass_ms) if verifier else UNKNOWN_COST

        def ask(prompt: Prompt) -> Sample:
            self._in_use.clear()
            verifier, drafter = self._parts(knobs)
            link = InProcessLink(verifier.loop, credential) if verifier else self._linked()
            if drafter is not None:
                self._executor.submit(drafter.prefill, self._codec.encode_chat(NOTHING)).result()  # forgets the last
            session = Session(
                link,
                drafter,
                pace,
                self._executor,
                max_drafts=knobs.max_drafts,
                max_ahead=knobs.max_ahead,
                patience_ms=knobs.patience_ms,
            )
            return asyncio.run(self._answer(session, prompt, pass_ms))

        return ask

    async def _answer(self, session: Session, prompt: Prompt, pass_ms: Callable[[int], float]) -> Sample:
        manifest = self._folder.manifest
        request = GenerationRequest(
            self._codec.encode_chat([{"role": "user", "content": prompt.text}]),
            self._max_tokens,
            stop_ids=manifest.stop_ids,
            vocabulary=manifest.tokenizer_fingerprint,
            self_drafts=True,
        )
        report = session.report
        token_ids: list[int] = []
        heard_rows: list[int] = []  # of each pass after the prompt's, as far as a link tells
        num_passes = num_drafted = num_tokens = 0
        self._passes.clear()
        meter = _Meter(has_joules=self._has_joules)
        async for event in session.generate(request):
            if report.num_passes > num_passes:
                if num_passes:
                    heard_rows.append(max(1 + report.num_drafted - num_drafted, report.num_tokens - num_tokens))
                else:
                    meter = _Meter(has_joules=self._has_joules)
                num_passes, num_drafted, num_tokens = report.num_passes, report.num_drafted, report.num_tokens
            if isinstance(event, Token):
                token_ids.append(event.token_id)
        energy = meter.read()
        if self._open_link is None:
            heard_rows = [one.num_rows for one in self._passes if one.emitted][1:]
        return Sample(token_ids, report.total_ms - report.first_token_ms, sum(map(pass_ms, heard_rows)), energy)

    def _linked(self) -> Link:
        assert self._open_link is not None
        return self._open_link()

    def _parts(self, knobs: Knobs) -> tuple[LocalVerifier | None, Drafter | None]:
        verifier = None
        if self._open_link is None:
            settings = knobs.verifying(self._settings)
            found = self._kept(self._folder, settings, lambda: self._verifier(settings))
            assert isinstance(found, LocalVerifier)
            verifier = found
        drafter: Drafter | None = None
        if knobs.drafter == "lookup" or knobs.drafter.startswith(AFTER_LOOKUP):
            drafter = LookupDrafter()
        if model := drafting_model(knobs.drafter):
            folder = catalog.find(model)
            threads = knobs.drafting(self._settings)
            drafting = self._kept(folder, threads, lambda: open_drafter(model, self._folder, threads, self._progress))
            assert drafting is not None
            assert not isinstance(drafting, LocalVerifier)
            drafter = CascadeDrafter(drafter, drafting) if drafter is not None else drafting
        return verifier, drafter

    def _verifier(self, settings: EngineSettings) -> LocalVerifier:
        verifier = open_verifier(self._folder, settings, self._progress)
        verifier.loop.verifier.on_pass.append(self._passes.append)
        return verifier

    def _kept(
        self, folder: ModelFolder, settings: EngineSettings, opening: Callable[[], LocalVerifier | Drafter | None]
    ) -> LocalVerifier | Drafter | None:
        """What is open already, or is opened in the place of what was not used for longest."""
        key = (str(folder.path), settings.num_threads)
        self._in_use.add(key)
        part = self._open.pop(key, None)
        if part is None:
            idle = [other for other in self._open if other not in self._in_use]
            while idle and _is_short(num_bytes(folder)):
                self._open.pop(idle.pop(0)).close()
            part = opening()
        if part is not None:
            self._open[key] = part
        return part

    def close(self) -> None:
        self._executor.shutdown()
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Meter:
    """Joules where the processor counts them, else seconds of all cores that this process had."""

    def __init__(self, *, has_joules: bool) -> None:
        self._joules = EnergyMeter() if has_joules else None
        self._begun_s = time.process_time()

    def read(self) -> float:
        if self._joules is None:
            return time.process_time() - self._begun_s
        joules = self._joules.read().joules
        return float("inf") if joules is None else joules


def _is_short(num_needed: int) -> bool:
    available = available_bytes()
    return available is not None and available < num_needed + SPARE_BYTES
