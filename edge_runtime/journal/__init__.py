"""What the device remembers: conversations, and of every generated token whether the target has verified it.

A generation is what was asked and a list of tokens, verified ones left of provisional ones. Provisional tokens are
confirmed or retracted, verified ones stay. A write has reached the disk when it returns: a crash, a power cut or a full
disk loses nothing that was verified before. Knows ids and what was asked; no session, no link, no screen.
"""

from edge_runtime.journal.journal import Journal
from edge_runtime.journal.lease import Lease
from edge_runtime.journal.record import Record
from edge_runtime.journal.scribe import Scribe
from edge_runtime.journal.values import Asked, Conversation, Generation

__all__ = ["Asked", "Conversation", "Generation", "Journal", "Lease", "Record", "Scribe"]
