"""`outrider doctor`: what this machine has, what of it works, what it would choose, what to fix. Changes nothing."""

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from edge_runtime.checkup.advice import Choice, advise
from edge_runtime.checkup.finding import Finding, examine
from edge_runtime.checkup.libraries import check_libraries
from edge_runtime.checkup.machine import check_journal, check_machine, check_store
from edge_runtime.checkup.models import check_engines, check_models
from edge_runtime.checkup.tuned import tell_tuned
from edge_runtime.checkup.verifier import Reached, check_verifier
from edge_runtime.cli.access import AllowInsecure, CaFile, ClientCert, TokenFile, check_named, read_access
from edge_runtime.cli.asking import DrafterName, Threads
from edge_runtime.cli.completion import model_names
from edge_runtime.cli.config_file import config_path, load
from edge_runtime.cli.output import print_json, show_progress
from edge_runtime.cli.tuned import TunedOption
from edge_runtime.tuning.stored import Tuned, choose_for
from outrider.errors import NotHere, UnknownModel

__all__ = ["doctor"]


def doctor(
    verifier: Annotated[str | None, typer.Option(help="Address of a verifier to try, too.")] = None,
    target: Annotated[
        str | None, typer.Option(help="The model whose answers you want.", autocompletion=model_names)
    ] = None,
    drafter: DrafterName = "auto",
    threads: Threads = 0,
    tuned: TunedOption = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="Look only: import no library, run no model.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    client_cert: ClientCert = None,
    allow_insecure: AllowInsecure = False,
) -> None:
    """Look this device over: machine, libraries, models, engines, journal, verifier; say what it would choose and why.

    What could be better or is broken comes with the command that mends it. Exit status: 1 when something is broken.

    Examples:

        outrider doctor

        outrider doctor --verifier http://127.0.0.1:8700 --json
    """
    check_named(verifier, token_file=token_file, ca_file=ca_file, client_cert=client_cert)
    reached: list[Reached] = []
    in_use: list[Tuned] = []

    def look_for_tuned() -> Iterator[Finding]:
        try:
            found, notice = choose_for(tuned, target=target, verifier=verifier, drafter=drafter, threads=threads)
        except (NotHere, UnknownModel):
            return  # for a target that is not here nothing is tuned; the choice tells of it
        in_use.extend([found] if found else [])
        yield from tell_tuned(found, notice)

    def try_verifier() -> Iterator[Finding]:
        access = read_access(verifier, token_file, ca_file, client_cert, is_insecure=allow_insecure)
        found, findings = check_verifier(verifier or "", token=access.token, tls=access.tls)
        reached.extend([found] if found else [])
        yield from findings

    checks = {
        "machine": check_machine,
        "store": check_store,
        "config": _config,
        "extras": lambda: check_libraries(imports=not quick),
        "models": check_models,
        **({} if quick else {"engines": check_engines}),
        "tuned": look_for_tuned,
        "journal": check_journal,
        **({"verifier": try_verifier} if verifier else {}),
    }
    findings: list[Finding] = []
    with show_progress() as progress:
        for number, (name, check) in enumerate(checks.items()):
            progress("looking", number, len(checks))
            findings += examine(name, check)
        progress("looking", len(checks), len(checks))
    choices: list[Choice] = []

    def choose() -> Iterator[Finding]:
        # What was found with a verifier is of no use where that does not answer.
        usable = in_use[0] if in_use and (reached or not verifier) else None
        choice, more = advise(reached[0] if reached else None, target, drafter, threads, usable)
        choices.append(choice)
        yield from more

    findings += examine("choice", choose)
    is_healthy = all(finding.state != "broken" for finding in findings)
    choice = choices[0] if choices else Choice("none")
    if json:
        print_json({"healthy": is_healthy, "findings": findings, "choice": choice})
    else:
        sys.stdout.write("\n".join(_lines(findings, choice)) + "\n")
    if not is_healthy:
        raise typer.Exit(1)


def _config() -> Iterator[Finding]:
    values = load()
    yield Finding("config", "ok", f"{config_path()} sets {', '.join(values)}" if values else "nothing is set")


def _lines(findings: list[Finding], choice: Choice) -> Iterator[str]:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        yield f"{finding.state:<6}  {finding.name:<{width}}  {finding.detail}"
        if finding.fix:
            yield f"{'':<6}  {'':<{width}}  -> {finding.fix}"
    yield ""
    if choice.mode == "none":
        yield "It would choose: nothing, for nothing can answer"
    else:
        yield (
            f"It would choose: {choice.mode}, target {choice.target}, drafter {choice.drafter}, "
            f"{choice.num_threads} threads"
        )
    yield from (f"  because {why}" for why in choice.why)
