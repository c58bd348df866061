"""`outrider generate`: one answer on standard output, its figures after it."""

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.cli.access import TOKEN_VARIABLE, device_tls, read_token
from edge_runtime.cli.output import console, print_json, show_progress
from edge_runtime.parts import DEFAULT_TARGET
from edge_runtime.report import Report
from edge_runtime.runtime import Finished, Runtime, check_request
from outrider.choice import SamplingParams
from outrider.engines import EngineSettings
from outrider.errors import InvalidParameter

__all__ = ["generate"]


def generate(
    prompt: Annotated[str, typer.Argument(help="What to say to the model; - reads standard input.")],
    target: Annotated[
        str | None,
        typer.Option(
            help=f"The model whose answer you want: a name or a path. [default: {DEFAULT_TARGET}, or the verifier's]"
        ),
    ] = None,
    verifier: Annotated[str | None, typer.Option(help="Address of a verifier that runs the target.")] = None,
    drafter: Annotated[str, typer.Option(help="Who guesses ahead: auto, none, lookup, or a model.")] = "auto",
    max_tokens: Annotated[int, typer.Option(help="Tokens to generate at most.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = SamplingParams.temperature,
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.")] = SamplingParams.top_k,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens that make up p.")] = SamplingParams.top_p,
    min_p: Annotated[float, typer.Option(help="Drop tokens below p times the likeliest.")] = SamplingParams.min_p,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answer.")] = SamplingParams.seed,
    threads: Annotated[int, typer.Option(help="Threads of each model; 0 uses the physical cores.")] = 0,
    context: Annotated[int, typer.Option(help="Tokens that prompt and answer may have.")] = EngineSettings.max_context,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text, without the chat template.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one object instead of text.")] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File that holds the verifier's token. [default: the token in {TOKEN_VARIABLE}]"),
    ] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Trust verifiers of this authority, PEM.")] = None,
    client_cert: Annotated[Path | None, typer.Option(help="Certificate and key to show the verifier, PEM.")] = None,
    allow_insecure: Annotated[
        bool, typer.Option("--allow-insecure", help="Send the token to another machine without TLS.")
    ] = False,
) -> None:
    """Answer PROMPT with exactly the target's tokens, sooner.

    Examples:

        outrider generate "Write a binary search in Python."

        outrider generate "Tell me a story." --temperature 0.8 --seed 7 --max-tokens 400

        outrider generate "Hello" --verifier http://127.0.0.1:8700 --drafter lookup --json
    """
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    settings = EngineSettings(num_threads=threads, max_context=context)
    try:
        text = sys.stdin.read() if prompt == "-" else prompt
    except UnicodeDecodeError:
        raise InvalidParameter("standard input is not UTF-8 text; convert it first") from None
    check_request(text, max_tokens)
    with show_progress() as progress:
        if verifier is None:
            runtime = Runtime.local(target or DEFAULT_TARGET, drafter, settings, progress)
        else:
            token = read_token(token_file, verifier, is_insecure=allow_insecure)
            tls = device_tls(ca_file, client_cert)
            runtime = Runtime.remote(verifier, target, drafter, settings, progress, token=token, tls=tls)
    with runtime:
        asyncio.run(_answer(runtime, text, params, max_tokens, is_chat=not raw, as_json=json))


async def _answer(
    runtime: Runtime, prompt: str, params: SamplingParams, max_tokens: int, *, is_chat: bool, as_json: bool
) -> None:
    token_ids: list[int] = []
    parts: list[str] = []
    async with aclosing(runtime.generate(prompt, params, max_tokens=max_tokens, is_chat=is_chat)) as events:
        async for event in events:
            if isinstance(event, Finished):
                finished = event
                continue
            if event.token is not None:
                token_ids.append(event.token.token_id)
            parts.append(event.text)
            if not as_json:
                sys.stdout.write(event.text)
                sys.stdout.flush()
    figures = _figures(finished.report)
    if as_json:
        print_json({"text": "".join(parts), "token_ids": token_ids, "finish_reason": finished.reason, **figures})
    else:
        sys.stdout.write("\n")
        report = finished.report
        console.print(
            f"\n{report.num_tokens} tokens, {report.tokens_per_s:.1f} tokens/s, "
            f"{report.tokens_per_pass:.2f} tokens per pass, "
            f"{report.acceptance:.0%} of {report.num_drafted} drafts accepted, "
            f"{report.bytes_per_token:.1f} bytes a token, first token after {report.first_token_ms:.0f} ms",
            style="dim",
        )


def _figures(report: Report) -> dict[str, object]:
    return {
        "target": report.target,
        "counts": {
            "prompt": report.num_prompt,
            "tokens": report.num_tokens,
            "passes": report.num_passes,
            "drafted": report.num_drafted,
            "accepted": report.num_accepted,
            "accepted_by": report.accepted_by,
            "bytes_up": report.bytes_up,
            "bytes_down": report.bytes_down,
        },
        "times": {"first_token_ms": report.first_token_ms, "total_ms": report.total_ms},
        "tokens_per_s": report.tokens_per_s,
        "tokens_per_pass": report.tokens_per_pass,
        "acceptance": report.acceptance,
        "bytes_per_token": report.bytes_per_token,
    }
