"""Chooses a device's parts by name: the drafter, and whose tokenizer. Knows no text and no screen."""

from contextlib import suppress
from dataclasses import replace

from cloud_verifier.target import compiler_of
from edge_runtime.drafters import CascadeDrafter, CrossVocabularyDrafter, Drafter, LookupDrafter, ModelDrafter
from edge_runtime.journal import Journal
from outrider import catalog
from outrider.engines import EngineSettings, open_engine
from outrider.errors import InvalidModel, NotHere, UnknownModel
from outrider.manifest import ModelFolder
from outrider.past_texts import PastTexts
from outrider.progress import Progress, silent
from outrider.tokens import TextCodec

__all__ = [
    "AFTER_LOOKUP",
    "DEFAULT_DRAFTER",
    "DEFAULT_TARGET",
    "auto_drafter",
    "drafting_model",
    "open_drafter",
    "past_of",
    "tokenizer_source",
]

DEFAULT_TARGET = "qwen2.5-coder-1.5b-onnx"
DEFAULT_DRAFTER = "qwen2.5-coder-0.5b-onnx-trim"
WORDS = ("auto", "none", "lookup")  # drafters without a model's name
AFTER_LOOKUP = "lookup+"  # before a model's name: the text first, the model where the text has nothing as good
MAX_PAST = 2**18  # tokens of past texts: some MiB, and half a second to get ready


def tokenizer_source(drafter: str, vocabulary: str = "") -> str:
    """The model whose folder holds the tokenizer, for a device that names a drafter and no target.

    With `vocabulary`, its fingerprint, any model that has it; NotHere where there is none. Without either the defaults
    where they are here, else what all models here share; NotHere where they share none.
    """
    if vocabulary:
        if vocabulary in (speakers := _speakers()):
            return speakers[vocabulary]
        raise NotHere(f"no model on this machine has the vocabulary {vocabulary[:12]}; pull the one it is of")
    if model := drafting_model(drafter):
        return model
    stored = catalog.stored()
    for name in (DEFAULT_DRAFTER, DEFAULT_TARGET):
        if name in stored:
            return name
    if len(speakers := _speakers()) > 1:
        raise NotHere("the models here have different vocabularies; name the verifier's target with --target")
    return next(iter(speakers.values()), DEFAULT_TARGET)


def open_drafter(
    name: str,
    target: ModelFolder,
    settings: EngineSettings,
    progress: Progress = silent,
    past: PastTexts | None = None,
) -> Drafter | None:
    """The drafter for `--drafter NAME`, for this target, of which it reads no more than the tokenizer.

    "none": None. "lookup": the text itself, and the `past` texts. A model's name: that model, by way of the text where
    its vocabulary is another. "lookup+" and a model's name: the text, and that model behind it. "auto": what
    `auto_drafter` says. Raises what `find` and `TextCodec` do.
    """
    if name == "auto":
        name = auto_drafter(target)
    if name == "none":
        return None
    if name == "lookup":
        return LookupDrafter(past)
    if name.startswith(AFTER_LOOKUP):
        model = open_drafter(name.removeprefix(AFTER_LOOKUP), target, settings, progress)
        return CascadeDrafter(LookupDrafter(past), model) if model is not None else LookupDrafter(past)
    folder = catalog.find(name)
    if _same_vocabulary(folder, target):
        return _model_drafter(folder, settings, progress)
    own_codec, target_codec = TextCodec(folder), TextCodec(target)
    return CrossVocabularyDrafter(_model_drafter(folder, settings, progress), own_codec, target_codec)


def auto_drafter(target: ModelFolder) -> str:
    """What "auto" stands for: lookup, and the default drafter behind it where that is on this machine and speaks the
    target's vocabulary."""
    try:
        folder = catalog.find(DEFAULT_DRAFTER)
    except (NotHere, UnknownModel):
        return "lookup"
    return AFTER_LOOKUP + DEFAULT_DRAFTER if _same_vocabulary(folder, target) else "lookup"


def drafting_model(drafter: str) -> str:
    """The model in a drafter's name; "" where it has none."""
    name = drafter.removeprefix(AFTER_LOOKUP)
    return "" if name in WORDS else name


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


def _speakers() -> dict[str, str]:
    """A model of the store for each vocabulary; those that are broken are nobody's tokenizer."""
    names: dict[str, str] = {}
    for name in catalog.stored():
        with suppress(InvalidModel):
            names.setdefault(catalog.find(name).manifest.tokenizer_fingerprint, name)
    return names


def _same_vocabulary(folder: ModelFolder, other: ModelFolder) -> bool:
    return folder.manifest.tokenizer_fingerprint == other.manifest.tokenizer_fingerprint


def _model_drafter(folder: ModelFolder, settings: EngineSettings, progress: Progress) -> ModelDrafter:
    progress(f"loading {folder.name}", 0, 1)
    engine = open_engine(folder, replace(settings, max_sequences=1))  # one list at a time
    progress(f"loading {folder.name}", 1, 1)
    return ModelDrafter(engine, name=folder.name, constrain=compiler_of(folder))
