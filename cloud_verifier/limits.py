"""Bounds that a verifier enforces on every session. Numbers only."""

__all__ = ["FILL_TOKENS", "MAX_DRAFTS_PER_PASS", "MAX_PENDING", "MAX_UNREAD"]

MAX_PENDING = 256  # drafts that may wait in one session
MAX_DRAFTS_PER_PASS = 31  # of them one pass checks, with the last verified token 32 rows
FILL_TOKENS = 128  # prompt tokens one pass fills in, so that others need not wait for a long prompt
MAX_UNREAD = 1024  # messages of one connection that may wait between two passes
