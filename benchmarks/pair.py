"""Suite `pair`: both models on this machine. The target alone, the pair with each drafter, and peers, turn by turn.

Every pair must say what the target says in its numerics class. A peer says what it says; it is measured at the setting
that was its best on a prompt that is not in the table.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.measuring import measuring
from benchmarks.options import PairOptions
from benchmarks.order import rotated
from benchmarks.peers.base import Peer, PeerFailed, Published
from benchmarks.prompts import Prompt, held_out, select
from benchmarks.record import Missing, Result, Run
from benchmarks.record import Published as Told
from benchmarks.ways import Contender, our_ways, peer_ways, profiles
from edge_runtime.parts import DEFAULT_DRAFTER
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.progress import Progress, silent
from outrider.tokens import TextCodec

__all__ = ["run"]

PAUSE_S = 0.3  # the engines' idle threads stop spinning
MAX_CONTEXT = 1024
WARM_UP = "Count from one to fifty in words."
WARM_UP_TOKENS = 24
NUM_WARM_UPS = 3  # of which the first is thrown away


@dataclass(frozen=True)
class Asked:
    """A prompt as it is fed."""

    prompt: Prompt
    token_ids: list[int]


def run(
    options: PairOptions,
    command: Sequence[str],
    peers: Sequence[Peer] = (),
    published: Sequence[Published] = (),
    progress: Progress = silent,
    keep: Callable[[Result], None] = lambda result: None,
) -> Result:
    """`keep` is given what there is so far after each prompt of each kind: if it is the last, whoever reads is told.

    Raises what `select` and `catalog.find` do, and what loading raises.
    """
    with measuring("pair", options, command, options.threads) as result:
        chosen = select(options.prompts)
        folder = catalog.find(options.target)
        codec = TextCodec(folder)
        settings = EngineSettings(num_threads=options.threads, max_context=MAX_CONTEXT)
        result.published = [Told(each.name, each.figure, each.conditions, each.source) for each in published]

        def feed(text: str) -> list[int]:
            return codec.encode_chat([{"role": "user", "content": text}])

        asked = {kind: [Asked(prompt, feed(prompt.text)) for prompt in prompts] for kind, prompts in chosen.items()}
        spare = {kind: feed(prompt.text) for kind, prompt in held_out(options.prompts).items()}
        with ExitStack() as stack:
            progress("loading", 0, 0)
            ours, missing = our_ways(folder, options.drafters, options.also, settings, stack)
            theirs, cannot = peer_ways(peers, options.peers)
            table = _Table(options, asked, spare, feed(WARM_UP), progress)
            table.warm_up(ours)
            contenders = [*ours, *table.choose(theirs)]
            result.profiles = profiles([options.target, *options.also, *options.drafters, DEFAULT_DRAFTER])
            num_rounds = max(map(len, asked.values()))
            for number in range(num_rounds):
                table.measure(contenders, number, num_rounds)
                result.ways = [each.way for each in contenders if each.way.name not in table.failed]
                result.runs = [run for run in table.runs if run.way not in table.failed]
                result.warm_ups = table.warm_ups
                result.missing = [*missing, *cannot, *(Missing(*failed) for failed in table.failed.items())]
                result.partial = f"{number + 1} of {num_rounds} rounds" if number + 1 < num_rounds else ""
                keep(result)
    return result


class _Table:
    """What was measured so far. A peer that fails is out, with its reason."""

    def __init__(
        self,
        options: PairOptions,
        asked: dict[str, list[Asked]],
        held_out: dict[str, list[int]],
        warm_up: list[int],
        progress: Progress,
    ) -> None:
        self._options, self._asked, self._held_out, self._warm_up = options, asked, held_out, warm_up
        self._progress = progress
        self._best: dict[tuple[str, str], str] = {}  # peer and kind -> setting
        self.runs: list[Run] = []
        self.warm_ups: list[Run] = []
        self.failed: dict[str, str] = {}

    def warm_up(self, ours: Sequence[Contender]) -> None:
        """Ours, which are loaded; the same way's speeds also say whether the machine is quiet."""
        for number in range(NUM_WARM_UPS):
            self._progress("warming up", number, NUM_WARM_UPS)
            for each in ours:
                self._pause()
                with each.open("") as generate:
                    answer = generate(self._warm_up, WARM_UP_TOKENS)
                if number:
                    self.warm_ups.append(Run.of(answer, "warm-up", "warm-up", each.way.name))
        self._progress("warming up", NUM_WARM_UPS, NUM_WARM_UPS)

    def choose(self, theirs: Sequence[Contender]) -> list[Contender]:
        """Each peer's best setting for each kind, on a prompt that is not measured. Those that ran."""
        for number, each in enumerate(theirs):
            self._progress("settings of peers", number, len(theirs))
            name, speeds, reason = each.way.name, {kind: dict[str, float]() for kind in self._asked}, ""
            settings = each.settings[:1] if self._options.is_quick else each.settings
            if len(settings) == 1:  # nothing to choose; what is wrong with it will show
                self._best |= {(name, kind): settings[0] for kind in speeds}
                continue
            for setting in settings:
                try:
                    with each.open(setting) as generate:
                        generate(self._warm_up, WARM_UP_TOKENS)
                        for kind, held_out in self._held_out.items():
                            answer = generate(held_out, self._options.max_tokens // 2)  # to tell settings apart
                            run = Run.of(answer, kind, "held out", name, setting=setting)
                            self.warm_ups.append(run)
                            speeds[kind][setting] = run.tokens_per_s
                except PeerFailed as error:  # this setting; the next may do
                    reason = f"{setting}: {error}" if setting else str(error)
            for kind, by_setting in speeds.items():
                if by_setting:
                    self._best[name, kind] = max(by_setting, key=by_setting.__getitem__)
                else:
                    self.failed[name] = reason
        self._progress("settings of peers", len(theirs), len(theirs))
        return [each for each in theirs if each.way.name not in self.failed]

    def measure(self, contenders: Sequence[Contender], number: int, num_rounds: int) -> None:
        """A round: a prompt of each kind, every way once a prompt."""
        for place, each in enumerate(rotated(contenders, number)):
            self._progress("measuring", number * len(contenders) + place, num_rounds * len(contenders))
            if each.way.name not in self.failed:
                try:
                    self._round(each, number)
                except PeerFailed as error:
                    self.failed[each.way.name] = str(error)
        self._progress("measuring", (number + 1) * len(contenders), num_rounds * len(contenders))

    def _round(self, each: Contender, number: int) -> None:
        name = each.way.name
        by_setting: dict[str, list[tuple[str, Asked]]] = {}
        for kind, asked in self._asked.items():
            if number < len(asked):
                by_setting.setdefault(self._best.get((name, kind), ""), []).append((kind, asked[number]))
        for setting, questions in by_setting.items():
            with each.open(setting) as generate:
                if each.way.role == "peer":  # it was only just loaded
                    generate(self._warm_up, WARM_UP_TOKENS)
                for kind, question in questions:
                    self._pause()
                    answer = generate(question.token_ids, self._options.max_tokens)
                    self.runs.append(Run.of(answer, kind, question.prompt.id, name, setting=setting))

    def _pause(self) -> None:
        if not self._options.is_quick:
            time.sleep(PAUSE_S)
