"""Holds another thread's steps, or lets them through one by one: what is under way stays so for a test to look at."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Open unless it is held."""

    def __init__(self, hang_s: float) -> None:
        self._hang_s = hang_s
        self._changed = threading.Condition()
        self._is_open = True
        self._num_waiting = 0
        self._num_passes = 0

    def wait(self) -> None:
        """A step begins."""
        with self._changed:
            self._num_waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_open or self._num_passes, self._hang_s)
            self._num_waiting -= 1
            self._num_passes = 0

    def pass_one(self) -> None:
        """Let the step through that waits, or the next that does. Raises TimeoutError where none comes."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._num_waiting > self._num_passes, self._hang_s):
                raise TimeoutError("no step came to the gate")
            self._num_passes = 1
            self._changed.notify_all()

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._changed:
            self._is_open = False
        try:
            yield
        finally:
            with self._changed:
                self._is_open = True
                self._changed.notify_all()
