"""A target ready to verify: a model's folder opened, measured, held to its numerics class, a loop running over it."""

from dataclasses import dataclass

from cloud_verifier.limits import Limits
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.signing import Signer
from cloud_verifier.verifier import Verifier
from outrider.constraint import GrammarCompiler
from outrider.engines import EngineSettings, open_engine
from outrider.engines.fastest import fastest
from outrider.engines.numerics import ClassEngine, class_cost_ms
from outrider.engines.profile import choose_class, load_or_measure
from outrider.manifest import ModelFolder
from outrider.progress import Progress, silent
from outrider.tokens import TextCodec

__all__ = ["LocalVerifier", "compiler_of", "open_verifier"]


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
    settings = fastest(folder, settings, progress)
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
        constrain=compiler_of(folder),
    )
    return LocalVerifier(VerifierLoop(verifier), exact, pass_ms)


def compiler_of(folder: ModelFolder) -> GrammarCompiler:
    """What makes constraints of grammars over a model's ids. It reads the tokenizer for the first one."""
    manifest = folder.manifest
    return GrammarCompiler(lambda: TextCodec(folder).tokenizer.to_str(), manifest.n_vocab, manifest.stop_ids)
