"""Chooses a device's parts by name: the drafter, and whose tokenizer. Knows no text and no screen."""

from dataclasses import replace

from cloud_verifier.target import compiler_of
from edge_runtime.drafters import CascadeDrafter, CrossVocabularyDrafter, Drafter, LookupDrafter, ModelDrafter
from edge_runtime.journal import Journal
from outrider import catalog
from outrider.engines import EngineSettings, open_engine
from outrider.errors import NotHere, UnknownModel
from outrider.manifest import ModelFolder
from outrider.past_texts import PastTexts
from outrider.progress import Progress, silent
from outrider.tokens import TextCodec

__all__ = ["DEFAULT_DRAFTER", "DEFAULT_TARGET", "open_drafter", "past_of", "tokenizer_source"]

DEFAULT_TARGET = "qwen2.5-coder-1.5b-onnx"
DEFAULT_DRAFTER = "qwen2.5-coder-0.5b-onnx-trim"
MAX_PAST = 2**18  # tokens of past texts: some MiB, and half a second to get ready


def tokenizer_source(drafter: str, vocabulary: str = "") -> str:
    """The model whose folder holds the tokenizer, for a device that names a drafter and no target.

    With `vocabulary`, its fingerprint, any model that has it; NotHere where there is none.
    """
    if vocabulary:
        for name in catalog.stored():
            if catalog.find(name).manifest.tokenizer_fingerprint == vocabulary:
                return name
        raise NotHere(f"no model on this machine has the vocabulary {vocabulary[:12]}; pull the one it is of")
    if drafter not in ("auto", "none", "lookup"):
        return drafter
    return DEFAULT_DRAFTER if DEFAULT_DRAFTER in catalog.stored() else DEFAULT_TARGET


def open_drafter(
    name: str,
    target: ModelFolder,
    settings: EngineSettings,
    progress: Progress = silent,
    past: PastTexts | None = None,
) -> Drafter | None:
    """The drafter for `--drafter NAME`, for this target, of which it reads no more than the tokenizer.

    "none": None. "lookup": the text itself, and the `past` texts. A model's name: that model, by way of the text where
    its vocabulary is another. "auto": lookup, and the default drafter behind it where that is on this machine and
    speaks the target's vocabulary. Raises what `find` and `TextCodec` do.
    """
    if name == "none":
        return None
    if name == "lookup":
        return LookupDrafter(past)
    if name == "auto":
        try:
            folder = catalog.find(DEFAULT_DRAFTER)
        except (NotHere, UnknownModel):
            return LookupDrafter(past)
        if not _same_vocabulary(folder, target):
            return LookupDrafter(past)
        return CascadeDrafter(LookupDrafter(past), _model_drafter(folder, settings, progress))
    folder = catalog.find(name)
    if _same_vocabulary(folder, target):
        return _model_drafter(folder, settings, progress)
    own_codec, target_codec = TextCodec(folder), TextCodec(target)
    return CrossVocabularyDrafter(_model_drafter(folder, settings, progress), own_codec, target_codec)


def past_of(journal: Journal, vocabulary: str) -> PastTexts:
    """The user's own latest prompts and answers, to draft from. Raises JournalError."""
    texts: list[list[int]] = []
    room = MAX_PAST
    for text in journal.texts(vocabulary):
        room -= len(text)
        if room < 0:
            break
        texts.append(text)
    return PastTexts(reversed(texts))


def _same_vocabulary(folder: ModelFolder, other: ModelFolder) -> bool:
    return folder.manifest.tokenizer_fingerprint == other.manifest.tokenizer_fingerprint


def _model_drafter(folder: ModelFolder, settings: EngineSettings, progress: Progress) -> ModelDrafter:
    progress(f"loading {folder.name}", 0, 1)
    engine = open_engine(folder, replace(settings, max_sequences=1))  # one list at a time
    progress(f"loading {folder.name}", 1, 1)
    return ModelDrafter(engine, name=folder.name, constrain=compiler_of(folder))
