"""Devices, their links and one verifier, event by event, with the product's own rules on both sides.

Real: the device's list (`Frontier`) and pace; the verifier's session, its own drafts, pace and guard, and for many
devices its whole scheduler (`simulated_verifier.py`). Simulated: how long a draft, a pass and a message take, what the
target says, and which of the drafter's guesses it agrees with. Milliseconds throughout; no clock is read.
"""

from benchmarks.simulation.device import NEVER, Device, Result
from benchmarks.simulation.events import Link, Server, play
from benchmarks.simulation.one import simulate
from benchmarks.simulation.text import N_VOCAB, Text, bursts, one_hot, repeating

__all__ = [
    "NEVER",
    "N_VOCAB",
    "Device",
    "Link",
    "Result",
    "Server",
    "Text",
    "bursts",
    "one_hot",
    "play",
    "repeating",
    "simulate",
]
