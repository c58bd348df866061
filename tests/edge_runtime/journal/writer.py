"""Writes into a journal what follows from a seed, and keeps a model of what it wrote.

Run as a program it does so once it has read something, and again from two other seeds, into the journal at the path
that it is given.
"""

import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.journal import Asked, Generation, Journal, Record

PROMPT = [5, 6, 7]


@dataclass
class Model:
    """What a generation should hold."""

    token_ids: list[int] = field(default_factory=list)
    num_verified: int = 0
    finish: str | None = None

    def matches(self, generation: Generation) -> bool:
        found = (generation.token_ids, generation.num_verified, generation.finish)
        return found == (self.token_ids, self.num_verified, self.finish)


class Writer:
    """Steps that follow from a seed alone, done to a model and, where there is one, to a record."""

    def __init__(self, seed: int, record: Record | None = None) -> None:
        self.model = Model()
        self._random = random.Random(seed)
        self._record = record

    def step(self) -> None:
        model, record, chance = self.model, self._record, self._random
        end, frontier = len(PROMPT) + len(model.token_ids), len(PROMPT) + model.num_verified
        token_ids = [chance.randrange(2**32) for _ in range(chance.randint(1, 4))]
        if end == frontier and chance.random() < 0.6:
            if record:
                record.append_verified(end, token_ids)
            model.token_ids += token_ids
            model.num_verified += len(token_ids)
        elif end == frontier or chance.random() < 0.4:
            if record:
                record.append_provisional(end, token_ids)
            model.token_ids += token_ids
        elif chance.random() < 0.5:
            position = chance.randint(frontier, end)
            if record:
                record.confirm(position)
            model.num_verified = position - len(PROMPT)
        else:
            position = chance.randint(frontier, end)
            if record:
                record.retract(position)
            del model.token_ids[position - len(PROMPT) :]


if __name__ == "__main__":
    sys.stdin.read(1)
    for seed in range(3):
        with Journal(Path(sys.argv[1]), busy_s=60) as journal:
            record = journal.begin(Asked(PROMPT, 100))
            writer = Writer(seed, record)
            for _ in range(10):
                writer.step()
            assert writer.model.matches(journal.generation(record.id))
