"""The product's whole verifier on a clock that only passes move: its schedule, fairness, cache, pace and load.

Only the engine is not real: it says what the texts say, and a pass takes what the machine's curve says. Stands behind
the links of `benchmarks.simulation`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.machines import Machine
from benchmarks.simulation import N_VOCAB, Text, one_hot
from cloud_verifier.limits import Limits
from cloud_verifier.turn import PassReport
from cloud_verifier.verifier import Verifier
from outrider.engines.base import Chunk, Logits
from outrider.engines.sequences import Sequences
from outrider.errors import EngineError
from outrider.wire import Down, Draft, Fault, Open, Up, Verified, pack_ids

__all__ = ["BesideVerifier", "SimulatedVerifier", "numbered"]

FOREVER = 1e9  # seconds: an overloaded verifier is slow here, and tells nobody to move
DIGITS = 3  # tokens at the start of a prompt that say whose it is


def numbered(number: int, num_prompt: int) -> list[int]:
    """A prompt that no other device has."""
    digits = [number // N_VOCAB**place % N_VOCAB for place in range(DIGITS)]
    return digits + [1] * (max(DIGITS, num_prompt) - DIGITS)


class _Engine:
    """See `outrider.engines.base.Engine`. `now_ms` is the clock."""

    name = "simulated"
    n_vocab = N_VOCAB
    id_map: NDArray[np.int32] | None = None
    max_chunk = 512
    max_context = 2**20
    can_truncate = True
    supports_tree = False

    def __init__(self, machine: Machine, texts: Sequence[Text]) -> None:
        self._machine = machine
        self._texts = texts
        self.max_batch, self.max_sequences = machine.max_batch, machine.max_sequences
        self.now_ms = self.busy_ms = 0.0
        self._sequences = Sequences(machine.max_sequences)
        self._holds: dict[int, int] = {}  # sequence -> number of the text
        self.allocate = self._sequences.allocate
        self.length = self._sequences.length

    def extend(self, chunks: Sequence[Chunk]) -> list[Logits]:
        took_ms = self._machine.verify(len(chunks), sum(len(chunk.token_ids) for chunk in chunks))
        self.now_ms += took_ms
        self.busy_ms += took_ms
        return [self._extend_one(chunk) for chunk in chunks]

    def _extend_one(self, chunk: Chunk) -> Logits:
        start = self.length(chunk.sequence)
        if start == 0:
            digits = chunk.token_ids[:DIGITS]
            self._holds[chunk.sequence] = sum(digit * N_VOCAB**place for place, digit in enumerate(digits))
        end = start + len(chunk.token_ids)
        self._sequences.resize(chunk.sequence, end)
        text = self._texts[self._holds[chunk.sequence]]
        begin = end - chunk.num_logits + 1 - len(text.prompt_ids)
        return one_hot(text.token_ids[begin : begin + chunk.num_logits], chunk.num_logits)

    def truncate(self, sequence: int, length: int) -> None:
        self._sequences.resize(sequence, min(length, self.length(sequence)))

    def keep(self, sequence: int, start: int, rows: Sequence[int]) -> None:
        raise EngineError("this engine runs no trees; send a chain")

    def copy(self, source: int, target: int, length: int) -> None:
        self._holds[target] = self._holds[source]
        self._sequences.resize(target, length)

    def release(self, sequence: int) -> None:
        self._sequences.release(sequence)

    def close(self) -> None:
        """Nothing to free."""


class SimulatedVerifier:
    """`texts[i]` is what device i is told, after a prompt `numbered(i, ...)`. Each has a credential of its own."""

    def __init__(self, machine: Machine, texts: Sequence[Text]) -> None:
        self._engine = _Engine(machine, texts)
        limits = Limits(max_sessions=len(texts), pass_tokens=machine.pass_tokens, lookup_tokens=0, idle_s=FOREVER)
        self.verifier = Verifier(
            self._engine,
            target="",
            vocabulary="",
            limits=limits,
            pass_ms=machine.pass_ms(),
            clock=lambda: self._engine.now_ms / 1000,
            new_name=lambda: f"{len(self._numbers):06}",  # of sessions that waited equally long names decide
        )
        self.verifier.on_pass.append(self._passed)
        self.num_rows = 0
        self._names: dict[int, str] = {}
        self._numbers: dict[str, int] = {}

    @property
    def busy_ms(self) -> float:
        return self._engine.busy_ms

    def _passed(self, report: PassReport) -> None:
        self.num_rows += report.num_rows

    def receive(self, number: int, message: Up, now_ms: float) -> None:
        self._engine.now_ms = now_ms
        if isinstance(message, Open):
            name = self.verifier.open(message, str(number)).session
            self._names[number] = name
            self._numbers[name] = number
        else:
            self.verifier.receive(self._names[number], message)

    def step(self, now_ms: float) -> tuple[float, list[tuple[int, Down]]]:
        self._engine.now_ms = now_ms
        said = [(self._numbers[name], message) for name, message in self.verifier.step()]
        for _, message in said:
            if isinstance(message, Fault):
                raise message.error()
        return self._engine.now_ms - now_ms, said

    def wait_ms(self, now_ms: float) -> float | None:
        self._engine.now_ms = now_ms
        wait_s = self.verifier.wait_s()
        return None if wait_s is None else 1000 * wait_s


class BesideVerifier(SimulatedVerifier):
    """The drafter stands beside the target: before each pass it makes `num_drafts` for every session that has none."""

    def __init__(self, machine: Machine, texts: Sequence[Text], num_drafts: int) -> None:
        super().__init__(machine, texts)
        self._machine, self._texts, self._num_drafts = machine, texts, num_drafts
        self._places: dict[int, int] = {}  # of those without drafts: tokens verified so far
        self._told = dict.fromkeys(range(len(texts)), 0)
        self._epochs = dict.fromkeys(range(len(texts)), 0)

    def step(self, now_ms: float) -> tuple[float, list[tuple[int, Down]]]:
        drafting_ms = self._draft()
        self._engine.busy_ms += drafting_ms
        took_ms, said = super().step(now_ms + drafting_ms)
        for number, message in said:
            if isinstance(message, Verified):
                self._told[number] += len(message.token_ids) // 4
                if not message.finish:
                    self._places[number] = self._told[number]
        return drafting_ms + took_ms, said

    def _draft(self) -> float:
        """How long it took."""
        num_sessions = len(self._places)
        for number, place in self._places.items():
            text = self._texts[number]
            room = min(self._num_drafts, len(text.token_ids) - place - 1)
            drafts = [guess for guess, _ in zip(text.guesses(place), range(room), strict=False)]
            self._epochs[number] += 1
            ids, sure = pack_ids(guess for guess, _ in drafts), bytes(round(255 * chance) for _, chance in drafts)
            start = len(text.prompt_ids) + place
            self.verifier.receive(self._names[number], Draft(self._epochs[number], start, ids, sure))
        self._places.clear()
        return self._num_drafts * self._machine.beside(num_sessions, num_sessions) if num_sessions else 0.0
