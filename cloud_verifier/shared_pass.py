"""What a session's rows cost in a pass that it shares with others.

A pass over one session is priced as the profile measured it. Of a shared one the profile knows little: it says what a
few rows cost, and a full pass has hundreds. So the passes themselves are measured, by their rows, and a session is told
its part: what a plain row in such a pass comes to, and for each draft what the pass takes longer with it. Where rows
are nearly free, so are drafts; where each row takes its time, a draft is worth less than the token it may bring.
Arithmetic over times; knows no session.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["PassTimes", "SessionsPart"]

FADE = 0.9  # of a pass in the average of its size
FORGOTTEN = 0.05  # weight below which a size counts as never seen, so that it is tried again
AGING = 0.99  # of the weight of all other sizes, with every pass


@dataclass(slots=True)
class _Size:
    rows: float
    ms: float
    weight: float


class PassTimes:
    """Milliseconds of a pass by its rows over all its sessions, up to `most`; between sizes in proportion.

    It begins with `known`, the profile's, and goes on beyond it as its last half rises: a size that was never seen is
    believed to be cheap until it was. `learns` False: in other units than milliseconds, nothing is measured.
    """

    def __init__(self, known: Mapping[int, float], most: int, *, learns: bool = True) -> None:
        self._known = dict(known)
        self._most = most
        self._learns = learns
        self._seen: dict[int, _Size] = {}  # by half an octave
        self._table: list[float] = []
        self._tabulate()

    def __call__(self, num_rows: int) -> float:
        return self._table[min(num_rows, self._most)]

    def observe(self, num_rows: int, elapsed_ms: float) -> None:
        """A pass over so many rows took so long."""
        if not self._learns or elapsed_ms <= 0:
            return
        size = self._seen.setdefault(_size_of(num_rows), _Size(num_rows, elapsed_ms, 0.0))
        share = FADE if size.weight > FORGOTTEN else 0.0
        size.rows = share * size.rows + (1 - share) * num_rows
        size.ms = share * size.ms + (1 - share) * elapsed_ms
        for each in self._seen.values():
            each.weight *= AGING
        size.weight = 1.0
        self._tabulate()

    def _tabulate(self) -> None:
        seen = {number: size for number, size in self._seen.items() if size.weight > FORGOTTEN}
        points = {float(rows): ms for rows, ms in self._known.items() if _size_of(rows) not in seen}
        points |= {size.rows: size.ms for size in seen.values()}
        rows = sorted(points)
        ms = np.maximum.accumulate([points[each] for each in rows])  # more rows never take less
        last, half = rows[-1], rows[-1] / 2
        rise = (ms[-1] - float(np.interp(half, rows, ms))) / (last - half)
        beyond = max(float(self._most), last) + 1
        table = np.interp(np.arange(self._most + 1), [*rows, beyond], [*ms, ms[-1] + rise * (beyond - last)])
        self._table = table.tolist()


class SessionsPart:
    """Of one session in a pass of `num_sessions`, in which the others have `num_others` rows: callable as a cost.

    It follows what is learned of the times meanwhile: the pass itself is measured before it is paid for.
    """

    __slots__ = ("_num_others", "_num_sessions", "_pass_ms")

    def __init__(self, pass_ms: Callable[[int], float], num_sessions: int, num_others: int) -> None:
        self._pass_ms = pass_ms
        self._num_sessions = num_sessions
        self._num_others = num_others

    def __call__(self, num_rows: int) -> float:
        pass_ms, others = self._pass_ms, self._num_others
        return pass_ms(self._num_sessions) / self._num_sessions + pass_ms(others + num_rows) - pass_ms(others + 1)


def _size_of(num_rows: float) -> int:
    return round(2 * math.log2(num_rows))
