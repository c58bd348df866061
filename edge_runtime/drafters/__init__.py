"""Things that guess what comes next: a model, the text itself, or the one and then the other."""

from edge_runtime.drafters.base import Drafter, Proposal
from edge_runtime.drafters.cascade import CascadeDrafter
from edge_runtime.drafters.lookup import LookupDrafter
from edge_runtime.drafters.model import ModelDrafter

__all__ = ["CascadeDrafter", "Drafter", "LookupDrafter", "ModelDrafter", "Proposal"]
