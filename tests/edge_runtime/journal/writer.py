"""A process that writes into a journal and says what it believes committed, to be killed; a model of what it wrote.

Run as a program it is a fork server: it imports once, and starts a writer for every line `path pipe seed` it reads.
"""

import os
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.journal import Asked, Generation, Journal, Record

PROMPT = [5, 6, 7]
NUM_STEPS = 400


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


def write(path: Path, seed: int) -> None:
    """Say the generation's number, then a dot for each step that was committed."""
    with Journal(path) as journal:
        record = journal.begin(Asked(PROMPT, 100))
        os.write(1, b"%d " % record.id)
        writer = Writer(seed, record)
        for _ in range(NUM_STEPS):
            writer.step()
            os.write(1, b".")


def serve() -> None:
    """For each line start a writer whose standard output is the named pipe, say its process id, and when it ended."""
    for line in sys.stdin:
        path, output, seed = line.rsplit(maxsplit=2)
        pipe = os.open(output, os.O_WRONLY)
        child = os.fork()
        if child == 0:
            os.dup2(pipe, 1)
            write(Path(path), int(seed))
            os._exit(0)
        os.close(pipe)
        os.write(1, b"%d\n" % child)
        os.waitpid(child, 0)
        os.write(1, b"ended\n")


if __name__ == "__main__":
    serve()
