"""Looks a device over: what it has, what of that works, what it would choose and why. Changes nothing, mends nothing.

Whatever a check meets is a finding, never an exception. What may crash a process is tried in one of its own.
"""

from edge_runtime.checkup.advice import Choice, advise
from edge_runtime.checkup.finding import Finding, examine
from edge_runtime.checkup.libraries import libraries
from edge_runtime.checkup.machine import journal, machine, store
from edge_runtime.checkup.models import engines, models
from edge_runtime.checkup.verifier import Reached, verifier

__all__ = [
    "Choice",
    "Finding",
    "Reached",
    "advise",
    "engines",
    "examine",
    "journal",
    "libraries",
    "machine",
    "models",
    "store",
    "verifier",
]
