"""`outrider chat`: a conversation in the terminal, or line by line from a pipe."""

from contextlib import ExitStack, closing, nullcontext
from functools import partial
from typing import Annotated

import typer

from edge_runtime.cli.access import AllowInsecure, CaFile, ClientCert, TokenFile, read_access
from edge_runtime.cli.asking import DrafterName, Past, TargetName, Temperature, Threads, TopK, TopP, VerifierUrl
from edge_runtime.cli.chat_modes import MODES, Answerers, Modes
from edge_runtime.cli.conversation import Conversation
from edge_runtime.cli.keeping import open_journal
from edge_runtime.cli.output import show_progress
from edge_runtime.cli.talk import Talk
from edge_runtime.cli.tuned import TunedOption, find_tuned
from edge_runtime.knobs import Knobs
from edge_runtime.options import Options, check_request
from edge_runtime.parts import DEFAULT_TARGET, tokenizer_source
from edge_runtime.runtime import Runtime
from outrider import catalog
from outrider.choice import SamplingParams
from outrider.engines import EngineSettings
from outrider.errors import InvalidParameter

__all__ = ["chat"]

ANSWER_TOKENS = 1024


def chat(
    name: Annotated[
        str | None, typer.Argument(help="The conversation's name.", show_default="the time it begins, or the latest")
    ] = None,
    goes_on: Annotated[bool, typer.Option("--continue", help="Go on with a conversation of the journal.")] = False,
    target: TargetName = None,
    verifier: VerifierUrl = None,
    drafter: DrafterName = "auto",
    mode: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(MODES)}.",
            show_default="hybrid with a verifier, else local",
            autocompletion=lambda incomplete: [mode for mode in MODES if mode.startswith(incomplete)],
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before everything else.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens of an answer at most.")] = ANSWER_TOKENS,
    temperature: Temperature = SamplingParams.temperature,
    top_k: TopK = SamplingParams.top_k,
    top_p: TopP = SamplingParams.top_p,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answers.")] = SamplingParams.seed,
    threads: Threads = 0,
    tuned: TunedOption = "auto",
    context: Annotated[int, typer.Option(help="Tokens that the conversation may have.")] = EngineSettings.max_context,
    past: Past = False,
    no_journal: Annotated[bool, typer.Option("--no-journal", help="Keep nothing of this.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one object for each answer instead of text.")] = False,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    client_cert: ClientCert = None,
    allow_insecure: AllowInsecure = False,
) -> None:
    """Talk with the target: each answer exactly its own, sooner.

    On a terminal, drafts that were verified are green, provisional words dim, and those the target took back struck.
    Ctrl-C stops an answer; /help lists what else there is. Without a terminal every line of the input is a message,
    and answers are plain text.

    Examples:

        outrider chat

        outrider chat trip --verifier http://127.0.0.1:8700

        outrider chat --continue trip

        echo "What is a monad?" | outrider chat --no-journal
    """
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    options: Options = {"max_tokens": max_tokens}
    check_request("-", params, **options)
    if no_journal and (past or goes_on):
        raise InvalidParameter("--past and --continue read the journal and --no-journal goes without; leave one out")
    if goes_on and system is not None:
        raise InvalidParameter("a conversation keeps what it was told at first; leave out --system or --continue")
    settings = EngineSettings(num_threads=threads, max_context=context)
    access = read_access(verifier, token_file, ca_file, client_cert, is_insecure=allow_insecure)
    journal = None if no_journal else open_journal(is_needed=past or goes_on)
    with journal or nullcontext(), ExitStack() as stack:
        if goes_on and journal is not None:
            conversation = Conversation.resume(journal, name)
        else:
            conversation = Conversation.begin(journal, name, system)

        def opened(make: "partial[Runtime]") -> Runtime:
            with show_progress() as progress:
                return make(settings=settings, progress=progress, journal=journal, uses_past=past)

        def knobs(verifier: str | None) -> Knobs | None:
            found = find_tuned(tuned, target=target, verifier=verifier, drafter=drafter, threads=threads)
            return found.knobs if found else None

        def pair() -> Runtime:
            return opened(partial(Runtime.local, target or DEFAULT_TARGET, drafter, knobs=knobs(None)))

        def hybrid() -> Runtime:
            remote = partial(Runtime.remote, verifier or "", target, drafter, token=access.token, tls=access.tls)
            return opened(partial(remote, knobs=knobs(verifier)))

        def stream() -> Runtime:
            vocabulary = catalog.find(target or tokenizer_source(drafter)).manifest.tokenizer_fingerprint
            remote = partial(Runtime.remote, verifier or "", target, "none", token=access.token, tls=access.tls)
            return opened(partial(remote, vocabulary=vocabulary))

        answerers = Answerers(pair, hybrid if verifier else None, stream if verifier else None, target)
        modes = stack.enter_context(closing(Modes(answerers, mode)))
        Talk(modes, conversation, journal, params, options, system=system, as_json=json).run()
