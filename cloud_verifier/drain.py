"""Leaving without losing anybody: no new sessions, time for those that run, then word to go on elsewhere.

uvicorn by itself closes every socket at the first signal. Here the first SIGTERM only starts the drain; the server
stops when the last session is over or the time is up. A second signal, or Ctrl-C, stops at once.
"""

import asyncio
import logging
import signal
import time
from types import FrameType

import uvicorn

from cloud_verifier.loop import VerifierLoop

__all__ = ["DrainingServer"]

logger = logging.getLogger(__name__)

LEAVE_S = 0.5  # for last words to be written


class DrainingServer(uvicorn.Server):
    """`grace_s`: how long sessions that run may go on after SIGTERM."""

    def __init__(self, config: uvicorn.Config, verifier: VerifierLoop, grace_s: float) -> None:
        super().__init__(config)
        self._verifier = verifier
        self._grace_s = grace_s
        self._deadline_s: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Runs as a signal handler: it sets flags and nothing else."""
        if sig == signal.SIGTERM and self._deadline_s is None:
            self._verifier.start_draining()
            self._deadline_s = time.monotonic() + self._grace_s
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if self._deadline_s is not None and not self.should_exit:
            num_open = self._verifier.num_connections
            if num_open == 0 or time.monotonic() >= self._deadline_s:
                logger.info("drained", extra={"num_moved": num_open})
                await self._send_away()
                self.should_exit = True
        return await super().on_tick(counter)

    async def _send_away(self) -> None:
        """Sessions that are left are told to move; what was said gets time to be written."""
        await asyncio.to_thread(self._verifier.close)
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=LEAVE_S)
