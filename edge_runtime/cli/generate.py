"""`outrider generate`: one answer on standard output, its figures after it."""

import asyncio
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.cli.access import AllowInsecure, CaFile, ClientCert, TokenFile, check_named, read_access
from edge_runtime.cli.asking import DrafterName, Past, TargetName, Temperature, Threads, TopK, TopP, VerifierUrl
from edge_runtime.cli.keeping import open_journal
from edge_runtime.cli.output import show_progress, write_private
from edge_runtime.cli.show import show
from edge_runtime.cli.tuned import TunedOption, find_tuned
from edge_runtime.options import Options, check_request
from edge_runtime.parts import DEFAULT_TARGET
from edge_runtime.runtime import Runtime
from outrider.choice import SamplingParams
from outrider.constraint import Grammar
from outrider.engines import EngineSettings
from outrider.errors import InvalidParameter
from outrider.search import SearchParams

__all__ = ["generate"]


def generate(
    prompt: Annotated[str, typer.Argument(help="What to say to the model; - reads standard input.")],
    target: TargetName = None,
    verifier: VerifierUrl = None,
    drafter: DrafterName = "auto",
    max_tokens: Annotated[int, typer.Option(help="Tokens to generate at most.")] = 256,
    temperature: Temperature = SamplingParams.temperature,
    top_k: TopK = SamplingParams.top_k,
    top_p: TopP = SamplingParams.top_p,
    min_p: Annotated[float, typer.Option(help="Drop tokens below p times the likeliest.")] = SamplingParams.min_p,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answer.")] = SamplingParams.seed,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1: tokens of the prompt and the answer become less likely.")
    ] = SamplingParams.repetition_penalty,
    frequency_penalty: Annotated[
        float, typer.Option(help="Taken off a token for each time it is in the answer.")
    ] = SamplingParams.frequency_penalty,
    presence_penalty: Annotated[
        float, typer.Option(help="Taken off every token that is in the answer.")
    ] = SamplingParams.presence_penalty,
    logit_bias: Annotated[
        list[str] | None, typer.Option(metavar="ID=NUMBER", help="Make a token likelier or less so; repeatable.")
    ] = None,
    min_tokens: Annotated[
        int, typer.Option(help="Tokens before which no stop token may come.")
    ] = SamplingParams.min_tokens,
    stop: Annotated[list[str] | None, typer.Option(help="End the answer before this text; repeatable.")] = None,
    json_schema: Annotated[Path | None, typer.Option(help="A file: the answer is JSON of this schema.")] = None,
    grammar: Annotated[Path | None, typer.Option(help="A file: the answer follows this Lark grammar.")] = None,
    regex: Annotated[str | None, typer.Option(help="The answer as a whole matches this expression.")] = None,
    n: Annotated[int, typer.Option("--n", help="Answers; each has a seed one higher.")] = 1,
    logprobs: Annotated[
        int, typer.Option(help="With --json: log-probabilities, and those of so many likeliest tokens; -1 none.")
    ] = -1,
    beams: Annotated[
        int, typer.Option(help="Look for the likeliest answer with so many beams; for translations.")
    ] = SearchParams.num_beams,
    length_penalty: Annotated[
        float, typer.Option(help="Of beams: above 0 favours long answers, below 0 short ones.")
    ] = SearchParams.length_penalty,
    best_of: Annotated[int, typer.Option(help="The likeliest of so many samples.")] = SearchParams.best_of,
    threads: Threads = 0,
    tuned: TunedOption = "auto",
    context: Annotated[int, typer.Option(help="Tokens that prompt and answer may have.")] = EngineSettings.max_context,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text, without the chat template.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail where no verifier answers; never let the drafter answer alone.")
    ] = False,
    past: Past = False,
    no_journal: Annotated[
        bool, typer.Option("--no-journal", help="Keep nothing of this; then sync cannot finish it later.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one object instead of text.")] = False,
    receipt: Annotated[
        Path | None, typer.Option(help="Write a receipt here, signed if the verifier signs. The answer is in it.")
    ] = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    client_cert: ClientCert = None,
    allow_insecure: AllowInsecure = False,
) -> None:
    """Answer PROMPT with exactly the target's tokens, sooner.

    Where a verifier does not answer, the drafter does, provisionally, and the journal keeps it: see sync.

    Examples:

        outrider generate "Write a binary search in Python."

        outrider generate "Tell me a story." --temperature 0.8 --seed 7 --max-tokens 400

        outrider generate "Hello" --verifier http://127.0.0.1:8700 --drafter lookup --json

        outrider generate "Is 91 prime? Answer yes or no." --regex "yes|no"

        outrider generate "Translate into French: good morning" --beams 4
    """
    params = SamplingParams(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        repetition_penalty=repetition_penalty,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        logit_bias=tuple(_bias(entry) for entry in logit_bias or ()),
        min_tokens=min_tokens,
        grammar=_grammar(json_schema, grammar, regex),
    )
    search = SearchParams(beams, length_penalty, best_of)
    settings = EngineSettings(num_threads=threads, max_context=context)
    try:
        text = sys.stdin.read() if prompt == "-" else prompt
    except UnicodeDecodeError:
        raise InvalidParameter("standard input is not UTF-8 text; convert it first") from None
    options: Options = {
        "max_tokens": max_tokens,
        "is_chat": not raw,
        "stop": stop or [],
        "num_logprobs": logprobs,
        "wants_receipt": receipt is not None,
        "is_strict": strict,
        "search": search,
    }
    check_request(text, params, n=n, **options)
    if logprobs >= 0 and not json:
        raise InvalidParameter("--logprobs are told with --json alone; add it")
    if receipt is not None and (n != 1 or receipt.is_dir() or not receipt.absolute().parent.is_dir()):
        raise InvalidParameter("--receipt takes a file in a folder that exists, and one answer; change one of them")
    check_named(verifier, strict=strict)
    if past and no_journal:
        raise InvalidParameter("--past drafts from the journal and --no-journal goes without; leave one out")
    journal = open_journal(is_needed=past) if past or (verifier is not None and not no_journal) else None
    access = read_access(verifier, token_file, ca_file, client_cert, is_insecure=allow_insecure)
    found = find_tuned(tuned, target=target, verifier=verifier, drafter=drafter, threads=threads)
    knobs = found.knobs if found else None
    with journal or nullcontext():
        with show_progress() as progress:
            if verifier is None:
                if search.num_lanes > 1:  # a place in the cache for each, and nothing to draft
                    settings, drafter = replace(settings, max_sequences=search.num_lanes), "none"
                name = target or DEFAULT_TARGET
                runtime = Runtime.local(name, drafter, settings, progress, journal=journal, uses_past=past, knobs=knobs)
            else:
                runtime = Runtime.remote(
                    verifier,
                    target,
                    drafter,
                    settings,
                    progress,
                    token=access.token,
                    tls=access.tls,
                    journal=journal,
                    uses_past=past,
                    knobs=knobs,
                )
        with runtime:
            finished = asyncio.run(
                show(
                    runtime.generate_several(text, params, n=n, **options),
                    seed,
                    as_json=json,
                    tuned=found.name if found else "",
                    is_kept=journal is not None,
                )
            )
    if receipt is not None and finished is not None and finished.receipt is not None:
        write_private(receipt, finished.receipt)


def _bias(entry: str) -> tuple[int, float]:
    token_id, _, bias = entry.partition("=")
    try:
        return int(token_id), float(bias)
    except ValueError:
        raise InvalidParameter(f"--logit-bias is {entry!r}; give a token id and a number, as in 42=-5") from None


def _grammar(json_schema: Path | None, lark: Path | None, regex: str | None) -> Grammar | None:
    files = {"json_schema": json_schema, "lark": lark}
    given = {kind: _read(path) for kind, path in files.items() if path is not None}
    if regex is not None:
        given["regex"] = regex
    if len(given) > 1:
        raise InvalidParameter("--json-schema, --grammar and --regex exclude each other; give one")
    return next((Grammar(kind, text) for kind, text in given.items()), None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"{path} cannot be read ({error}); name a text file") from None
