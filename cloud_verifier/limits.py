"""Bounds that a verifier enforces. Numbers only; each says what it protects."""

from dataclasses import dataclass

from outrider.errors import InvalidParameter

__all__ = ["MAX_DRAFTS_PER_PASS", "MAX_PENDING", "MAX_UNREAD", "Limits"]

MAX_PENDING = 256  # drafts that may wait in one session
MAX_DRAFTS_PER_PASS = 31  # of them one pass checks, with the last verified token 32 rows
MAX_UNREAD = 1024  # messages of one connection that may wait between two passes


@dataclass(frozen=True, slots=True)
class Limits:
    """What an operator may set. Raises InvalidParameter for a number below 1 (`lookup_tokens`: below 0)."""

    max_sessions: int = 256  # open at once
    max_sessions_each: int = 64  # open at once, of one credential
    pass_tokens: int = 512  # rows of one engine pass, over all its sessions
    fill_tokens: int = 128  # prompt tokens a session fills in at a time, so that others need not wait for a long prompt
    resident_tokens: int = 2**24  # held in the KV cache, over all sequences
    lookup_tokens: int = 2**18  # held to draft from, a credential half of them; some 700 bytes each; 0: none
    idle_s: float = 600.0  # a session that waits for drafts and hears nothing for so long ends

    def __post_init__(self) -> None:
        for name in self.__slots__:
            least = 0 if name == "lookup_tokens" else 1
            if not getattr(self, name) >= least:
                raise InvalidParameter(f"{name} is {getattr(self, name)}; give a number from {least} on")
