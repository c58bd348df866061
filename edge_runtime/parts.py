"""Puts a generation's parts together by name: the target's verifier, the drafter, and the pace between them.

The one place that knows which engine goes where. Knows no text and no screen.
"""

from dataclasses import dataclass

from cloud_verifier.limits import Limits
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.signing import Signer
from cloud_verifier.verifier import Verifier
from edge_runtime.drafters import CascadeDrafter, CrossVocabularyDrafter, Drafter, LookupDrafter, ModelDrafter
from outrider import catalog
from outrider.constraint import GrammarCompiler
from outrider.engines import EngineSettings, open_engine
from outrider.engines.numerics import ClassEngine, class_cost_ms
from outrider.engines.profile import choose_class, load_or_measure
from outrider.errors import NotHere, UnknownModel
from outrider.manifest import ModelFolder
from outrider.past_texts import PastTexts
from outrider.progress import Progress, silent
from outrider.tokens import TextCodec

__all__ = ["DEFAULT_DRAFTER", "DEFAULT_TARGET", "LocalVerifier", "open_drafter", "open_verifier", "tokenizer_source"]

DEFAULT_TARGET = "qwen2.5-coder-1.5b-onnx"
DEFAULT_DRAFTER = "qwen2.5-coder-0.5b-onnx-trim"


@dataclass(frozen=True, slots=True)
class LocalVerifier:
    """A target running in this process. `pass_ms`: milliseconds of a pass over k tokens, as its profile measured."""

    loop: VerifierLoop
    engine: ClassEngine
    pass_ms: dict[int, float]

    def close(self) -> None:
        self.loop.close()
        self.engine.close()


def open_verifier(
    folder: ModelFolder,
    settings: EngineSettings,
    progress: Progress = silent,
    limits: Limits | None = None,
    signer: Signer | None = None,
) -> LocalVerifier:
    """Load the target, held to its numerics class; measures its profile the first time on a machine."""
    progress(f"loading {folder.name}", 0, 1)
    engine = open_engine(folder, settings)
    progress(f"loading {folder.name}", 1, 1)
    try:
        profile = load_or_measure(folder, engine, settings, progress)
        sizes = choose_class(profile)
        exact = ClassEngine(engine, sizes, batch_exact=profile.batch_exact)
    except BaseException:
        engine.close()
        raise
    manifest = folder.manifest
    pass_ms = class_cost_ms(profile.cost_ms, sizes)
    verifier = Verifier(
        exact,
        target=manifest.fingerprint,
        vocabulary=manifest.tokenizer_fingerprint,
        limits=limits,
        pass_ms=pass_ms,
        signer=signer,
        constrain=_compiler(folder),
    )
    return LocalVerifier(VerifierLoop(verifier), exact, pass_ms)


def tokenizer_source(drafter: str) -> str:
    """The model whose folder holds the tokenizer, for a device that names a drafter and no target."""
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


def _same_vocabulary(folder: ModelFolder, other: ModelFolder) -> bool:
    return folder.manifest.tokenizer_fingerprint == other.manifest.tokenizer_fingerprint


def _model_drafter(folder: ModelFolder, settings: EngineSettings, progress: Progress) -> ModelDrafter:
    progress(f"loading {folder.name}", 0, 1)
    engine = open_engine(folder, settings)
    progress(f"loading {folder.name}", 1, 1)
    return ModelDrafter(engine, name=folder.name, constrain=_compiler(folder))


def _compiler(folder: ModelFolder) -> GrammarCompiler:
    manifest = folder.manifest
    return GrammarCompiler(lambda: TextCodec(folder).tokenizer.to_str(), manifest.n_vocab, manifest.stop_ids)
