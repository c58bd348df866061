"""The frame of every suite's result: what was asked, where, when and for how long. The suite fills in the rest."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks import environment
from benchmarks.record import Result

__all__ = ["measuring"]


@contextmanager
def measuring(suite: str, options: object, command: Sequence[str], num_threads: int = 0) -> Iterator[Result]:
    """A result without runs; when the block ends, so does its time. The environment is what it was before."""
    began_s = time.perf_counter()
    result = Result(
        suite=suite,
        command=list(command),
        environment=environment.current(num_threads),
        settings=environment.plain(options),
        ways=[],
    )
    yield result
    result.elapsed_s = time.perf_counter() - began_s
