"""Chooses a device's parts by name: the drafter, and whose tokenizer. Knows no text and no screen."""

from edge_runtime.drafters import CascadeDrafter, Drafter, LookupDrafter, ModelDrafter
from outrider import catalog
from outrider.engines import EngineSettings, open_engine
from outrider.errors import NotHere, UnknownModel, VocabularyMismatch
from outrider.manifest import ModelFolder
from outrider.progress import Progress, silent

__all__ = ["DEFAULT_DRAFTER", "DEFAULT_TARGET", "open_drafter", "tokenizer_source"]

DEFAULT_TARGET = "qwen2.5-coder-1.5b-onnx"
DEFAULT_DRAFTER = "qwen2.5-coder-0.5b-onnx-trim"


def tokenizer_source(drafter: str) -> str:
    """The model whose folder holds the tokenizer, for a device that names a drafter and no target."""
    if drafter not in ("auto", "none", "lookup"):
        return drafter
    return DEFAULT_DRAFTER if DEFAULT_DRAFTER in catalog.stored() else DEFAULT_TARGET


def open_drafter(name: str, vocabulary: str, settings: EngineSettings, progress: Progress = silent) -> Drafter | None:
    """The drafter for `--drafter NAME`, for a target whose tokenizer has this fingerprint.

    "none": None. "lookup": the text itself. A model's name: that model. "auto": lookup, and the default drafter behind
    it where that is on this machine and speaks the target's vocabulary. Raises VocabularyMismatch and what `find` does.
    """
    if name == "none":
        return None
    if name == "lookup":
        return LookupDrafter()
    if name == "auto":
        try:
            folder = catalog.find(DEFAULT_DRAFTER)
        except (NotHere, UnknownModel):
            return LookupDrafter()
        if folder.manifest.tokenizer_fingerprint != vocabulary:
            return LookupDrafter()
        return CascadeDrafter(LookupDrafter(), _model_drafter(folder, settings, progress))
    folder = catalog.find(name)
    if folder.manifest.tokenizer_fingerprint != vocabulary:
        raise VocabularyMismatch(
            f"{name} does not share the target's vocabulary; choose a drafter of the same family, or --drafter lookup"
        )
    return _model_drafter(folder, settings, progress)


def _model_drafter(folder: ModelFolder, settings: EngineSettings, progress: Progress) -> ModelDrafter:
    progress(f"loading {folder.name}", 0, 1)
    engine = open_engine(folder, settings)
    progress(f"loading {folder.name}", 1, 1)
    return ModelDrafter(engine, name=folder.name)
