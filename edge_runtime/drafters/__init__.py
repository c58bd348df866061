"""Things that guess what comes next: a model of any vocabulary, the text itself, or the one and then the other."""

from edge_runtime.drafters.base import Drafter, Proposal
from edge_runtime.drafters.cascade import CascadeDrafter
from edge_runtime.drafters.cross_vocabulary import CrossVocabularyDrafter
from edge_runtime.drafters.lookup import LookupDrafter
from edge_runtime.drafters.model import ModelDrafter

__all__ = ["CascadeDrafter", "CrossVocabularyDrafter", "Drafter", "LookupDrafter", "ModelDrafter", "Proposal"]
