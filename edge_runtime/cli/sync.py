"""`outrider sync`: has verified what was written offline, and finishes what was cut short. Loads no model."""

import asyncio
from contextlib import ExitStack, aclosing
from functools import partial
from typing import Annotated

import typer

from edge_runtime.answer import Piece
from edge_runtime.cli.access import AllowInsecure, CaFile, ClientCert, TokenFile, read_access
from edge_runtime.cli.output import console, print_json
from edge_runtime.events import Finished, Retracted
from edge_runtime.journal import Generation, Journal
from edge_runtime.runtime import Runtime
from outrider.errors import JournalBusy, LinkError, OutriderError, Refused

__all__ = ["resume", "sync", "tell_resumed"]


def sync(
    verifier: Annotated[str, typer.Option(help="Address of a verifier that runs the target.")],
    json: Annotated[bool, typer.Option("--json", help="Print one object for each answer instead of text.")] = False,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    client_cert: ClientCert = None,
    allow_insecure: AllowInsecure = False,
) -> None:
    """Have the target confirm, or put right, all that was answered without it.

    Each answer's provisional tokens go up as one long draft. They are confirmed up to the first that the target would
    not have said; the rest is retracted, and the target goes on. Answers that a crash cut short are finished. What is
    being written just now is left alone. Safe to run again, and to interrupt. Exit status 1: some could not be done.

    Example: outrider sync --verifier http://127.0.0.1:8700
    """
    access = read_access(verifier, token_file, ca_file, client_cert, is_insecure=allow_insecure)
    has_failed = False
    with Journal() as journal:
        waiting = {generation.id: generation for generation in [*journal.unfinished(), *journal.pending()]}
        if not waiting:
            console.print("Nothing waits to be verified.")
        runtimes: dict[str, Runtime] = {}  # by vocabulary
        with ExitStack() as stack:
            for number, generation in sorted(waiting.items()):
                vocabulary = generation.asked.vocabulary
                try:
                    if vocabulary not in runtimes:
                        remote = partial(Runtime.remote, verifier, drafter="none", token=access.token, tls=access.tls)
                        runtimes[vocabulary] = stack.enter_context(remote(journal=journal, vocabulary=vocabulary))
                    done = asyncio.run(resume(runtimes[vocabulary], number))
                except JournalBusy:
                    continue
                except (LinkError, Refused):
                    raise
                except OutriderError as error:
                    has_failed = True
                    console.print(f"outrider: answer {number}: {error} [{error.code}]")
                else:
                    tell_resumed(generation, done, as_json=json)
    if has_failed:
        raise typer.Exit(1)


async def resume(runtime: Runtime, number: int) -> tuple[str, Finished]:
    """The answer's text as it is now, and its figures."""
    text = ""
    async with aclosing(runtime.resume(number)) as events:
        async for event in events:
            if isinstance(event, Finished):
                return text, event
            if isinstance(event, Retracted):
                text = text[: event.num_chars]
            elif isinstance(event, Piece):
                text += event.text
    raise AssertionError("an answer without an end")


def tell_resumed(before: Generation, done: tuple[str, Finished], *, as_json: bool) -> None:
    """What became of an answer that stood as `before`."""
    text, finished = done
    num_provisional = len(before.provisional_ids)
    counts = {
        "confirmed": num_provisional - finished.report.num_retracted,
        "retracted": finished.report.num_retracted,
        "tokens": before.num_verified + finished.report.num_tokens,
    }
    if as_json:
        head = {"answer": before.id, "conversation": before.conversation}
        print_json({**head, "text": text, "finish_reason": finished.reason, "counts": counts})
    else:
        print(f"answer {before.id}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    if finished.not_kept is not None:
        console.print(f"outrider: answer {before.id} is not in the journal: {finished.not_kept}")
