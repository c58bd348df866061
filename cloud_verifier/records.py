"""What is kept of one session for operators: counts and times, told once at its end as a log line and a span.

Never a token, a prompt or a session's name: those are between the device and the verifier.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

from outrider.wire import Down, Fault, Open, Opened, Up, Verified, unpack_ids

__all__ = ["SessionRecord"]

logger = logging.getLogger(__name__)


class SessionRecord:
    """`door` is where it came in, `span` an OpenTelemetry span where one was begun."""

    def __init__(self, door: str, credential: str, request_id: str, span: Any = None) -> None:
        self._ids = {"request_id": request_id, "door": door, "credential": credential}
        self._span = span
        self._began_s = time.monotonic()
        self._counts = dict.fromkeys(("prompt", "reused", "passes", "drafted", "accepted", "tokens"), 0)
        self._outcome = "closed"
        self._is_over = False

    def asked(self, messages: Sequence[Up]) -> None:
        for message in messages:
            if isinstance(message, Open):
                self._counts["prompt"] = len(message.token_ids) // 4

    def heard(self, message: Down) -> None:
        if isinstance(message, Opened):
            self._counts["reused"] = message.num_reused
            logger.info("session opened", extra={**self._ids, "num_prompt": self._counts["prompt"]})
        elif isinstance(message, Verified):
            self._counts["passes"] += 1
            self._counts["drafted"] += message.num_drafted
            self._counts["accepted"] += message.num_accepted
            self._counts["tokens"] += len(unpack_ids(message.token_ids))
            self._outcome = message.finish or self._outcome
        elif isinstance(message, Fault):
            self._outcome = message.code

    def end(self) -> None:
        """Tell it. `outcome` is how the list finished, the code of a fault, or that the client had what it wanted."""
        if self._is_over:
            return
        self._is_over = True
        counts = {f"num_{name}": count for name, count in self._counts.items()}
        duration_ms = round((time.monotonic() - self._began_s) * 1000, 3)
        told = {**self._ids, **counts, "outcome": self._outcome}
        logger.info("session ended", extra={**told, "duration_ms": duration_ms})
        if self._span is not None:
            self._span.set_attributes({f"outrider.{name}": value for name, value in told.items()})
            self._span.end()
