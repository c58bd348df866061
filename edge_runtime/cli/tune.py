"""`outrider tune`: finds a better setting than the defaults for this machine, or shows that there is none."""

import sys
from typing import Annotated

import msgspec
import typer

from edge_runtime.checkup.verifier import reach
from edge_runtime.cli.access import AllowInsecure, CaFile, ClientCert, TokenFile, read_access
from edge_runtime.cli.completion import model_names
from edge_runtime.cli.output import console, print_json, show_progress
from edge_runtime.knobs import Knobs
from edge_runtime.links import WebSocketLink
from edge_runtime.parts import DEFAULT_TARGET, tokenizer_source
from edge_runtime.tuning.compare import LEAST_GAIN
from edge_runtime.tuning.goals import ENERGY, GOALS, LATENCY, VERIFIER_COST
from edge_runtime.tuning.prompts import load_prompts, split
from edge_runtime.tuning.space import link_space, pair_space
from edge_runtime.tuning.stored import Tuned, check_name, default_name, fingerprint, machine, save
from edge_runtime.tuning.tune import Outcome
from edge_runtime.tuning.tune import tune as run_tuning
from edge_runtime.tuning.workbench import Workbench
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.errors import InvalidParameter, ModelMismatch

__all__ = ["tune"]

SETTINGS = EngineSettings(max_context=1024)
MAX_TOKENS = 48  # of an answer


def tune(
    target: Annotated[
        str | None,
        typer.Argument(
            help="The model whose answers you want: a name or a path.",
            show_default=f"{DEFAULT_TARGET}, or the verifier's",
            autocompletion=model_names,
        ),
    ] = None,
    goal: Annotated[
        str,
        typer.Option(
            help=f"What is to be little: {', '.join(GOALS)}.",
            autocompletion=lambda incomplete: [goal for goal in GOALS if goal.startswith(incomplete)],
        ),
    ] = LATENCY,
    prompts: Annotated[
        str, typer.Option(help="code, chat, both, or a file: a JSON object a line, with prompt and perhaps kind.")
    ] = "both",
    budget: Annotated[float, typer.Option(help="Minutes that it may take.")] = 10.0,
    verifier: Annotated[str | None, typer.Option(help="Address of a verifier that runs the target.")] = None,
    name: Annotated[
        str | None, typer.Option(help="How to call what is found.", show_default="the target's name and the goal")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens of each answer.")] = MAX_TOKENS,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    client_cert: ClientCert = None,
    allow_insecure: AllowInsecure = False,
) -> None:
    """Try settings of drafting on prompts, and keep one that beats the defaults on others, beyond the noise.

    Tries drafters, threads, how far to draft and how sure to be. No setting can change an answer; that is checked, too.
    Ctrl-C ends the search and compares the best so far; a second one ends that. Needs a machine with nothing else to
    do.

    Examples:

        outrider tune

        outrider tune --goal verifier-cost --prompts code --budget 5

        outrider tune --verifier http://127.0.0.1:8700 --prompts my.jsonl --name mine
    """
    if goal not in GOALS:
        raise InvalidParameter(f"--goal is {goal!r}; give one of {', '.join(GOALS)}")
    if not 8 <= max_tokens <= 512:
        raise InvalidParameter(f"--max-tokens is {max_tokens}; give a number from 8 to 512")
    if not 0 < budget <= 24 * 60:
        raise InvalidParameter(f"--budget is {budget:g} minutes; give a number above 0, up to a day's 1440")
    if name is not None:
        check_name(name)
    access = read_access(verifier, token_file, ca_file, client_cert, is_insecure=allow_insecure)
    searched, held_out = split(load_prompts(prompts))
    if verifier is None:
        folder, open_link = catalog.find(target or DEFAULT_TARGET), None
        space, fallback, fingerprint_of_target = pair_space(folder), folder.name, folder.manifest.fingerprint
    else:
        reached = reach(verifier, token=access.token, tls=access.tls)
        folder = catalog.find(target or tokenizer_source("auto", reached.vocabulary))
        if target is not None and folder.manifest.fingerprint != reached.target:
            raise ModelMismatch(f"the verifier runs target {reached.target[:12]}, not {target}; leave that out")
        space, fallback, fingerprint_of_target = link_space(folder, reached.target), "verifier", reached.target

        def open_link() -> WebSocketLink:
            return WebSocketLink(verifier or "", token=access.token, tls=access.tls)

    with show_progress() as progress, Workbench(folder, SETTINGS, max_tokens, progress, open_link) as bench:
        outcome = run_tuning(space, searched, held_out, bench.begin, goal, 60 * budget, progress=progress)
        unit = _unit(goal, bench.energy_unit, is_linked=verifier is not None)
    tuned = None
    challenger = outcome.found.challenger
    if outcome.is_gain and challenger is not None and outcome.comparison is not None:
        knobs = challenger.knobs
        called = name or default_name(fallback, goal)
        tuned = Tuned(
            called,
            fingerprint_of_target,
            machine(),
            goal,
            verifier or "",
            knobs,
            fingerprint(knobs),
            outcome.comparison,
        )
    path = save(tuned) if tuned is not None else None
    if json:
        print_json(_record(outcome, goal, unit, tuned))
    else:
        sys.stdout.write("\n".join(_lines(outcome, len(searched), unit, tuned)) + "\n")
        if path is not None:
            console.print(f"written to {path}", style="dim")
    if not outcome.is_exact:
        raise typer.Exit(1)
    if outcome.is_interrupted:
        raise typer.Exit(130)


def _unit(goal: str, energy: str, *, is_linked: bool) -> str:
    if goal == ENERGY:
        return "mJ a token" if energy == "joules" else "core-ms a token (no joules to be had here)"
    if goal == VERIFIER_COST:
        return "plain passes a token / 1000" if is_linked else "ms of the verifier a token"
    return "ms a token"


def _told(knobs: Knobs, defaults: Knobs) -> str:
    """What is other than by default."""
    fields = [name for name in knobs.__struct_fields__ if getattr(knobs, name) != getattr(defaults, name)]
    return ", ".join(f"{name.replace('_', ' ')} {getattr(knobs, name)}" for name in fields) or "all as by default"


def _lines(outcome: Outcome, num_prompts: int, unit: str, tuned: Tuned | None) -> list[str]:
    found, comparison = outcome.found, outcome.comparison
    ends = [trial.end for trial in found.trials]
    lines = [
        f"{machine()}; {unit}, less is better",
        f"tried {len(ends)} settings on {num_prompts} prompts: {ends.count('done')} to the end, "
        f"{ends.count('pruned')} given up early, {ends.count('failed')} failed",
        f"  {found.defaults.score:9.2f}  the defaults: drafter {found.defaults.knobs.drafter}",
    ]
    best = sorted((trial for trial in found.trials[1:] if trial.end == "done"), key=lambda trial: trial.score)
    lines += [f"  {trial.score:9.2f}  {_told(trial.knobs, found.defaults.knobs)}" for trial in best[:3]]
    failed = {f"{trial.knobs.drafter}: {trial.why}" for trial in found.trials if trial.end == "failed"}
    lines += [f"  failed     {why}" for why in sorted(failed)]
    if comparison is None or not comparison.num_pairs:
        lines.append("there was no time to compare anything with the defaults; give a larger --budget")
    else:
        old, new = comparison.defaults, comparison.challenger
        interval = comparison.interval
        sure = f"95 % between {interval[0]:.2f} and {interval[1]:.2f}" if interval else "too few prompts to be sure"
        lines += [
            f"on {comparison.num_prompts} held-out prompts in {comparison.num_pairs} pairs, in turns:",
            f"  defaults   {old[0]:9.2f}  ({old[1]:.2f} to {old[2]:.2f})",
            f"  best found {new[0]:9.2f}  ({new[1]:.2f} to {new[2]:.2f})",
            f"  {comparison.ratio:.2f} of the defaults, {sure}",
        ]
    lines.append(
        "every answer was the target's"
        if outcome.is_exact
        else "NOT every answer was the target's: this must not be; please report it"
    )
    if tuned is not None:
        gain = 1 - tuned.evidence.ratio
        lines.append(f"{gain:.0%} less than the defaults: kept as {tuned.name}")
    elif comparison is not None and comparison.num_pairs:
        lines.append(f"the defaults stay: no setting beat them by {LEAST_GAIN:.0%} and beyond the noise")
    return lines


def _record(outcome: Outcome, goal: str, unit: str, tuned: Tuned | None) -> dict[str, object]:
    found = outcome.found
    return {
        "goal": goal,
        "unit": unit,
        "machine": machine(),
        "exact": outcome.is_exact,
        "interrupted": outcome.is_interrupted,
        "trials": [
            {
                "knobs": trial.knobs,
                "end": trial.end,
                "score": trial.score if trial.end != "failed" else None,
                "prompts": trial.num_prompts,
                "why": trial.why,
            }
            for trial in found.trials
        ],
        "comparison": outcome.comparison and msgspec.to_builtins(outcome.comparison),
        "gain": outcome.is_gain,
        "tuned": tuned and tuned.name,
    }
