"""The search: setting after setting on the same prompts, poor ones given up early, until the time is over.

The first setting is the defaults, then comes each drafter, then what Optuna's TPE makes of what was seen. After every
prompt the running score is compared with what others had there; one that is behind their median is given up. Knows
neither models nor links: somebody else answers prompts, by any clock.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.knobs import Knobs
from edge_runtime.tuning.goals import Sample, cost, score
from edge_runtime.tuning.prompts import Prompt
from edge_runtime.tuning.space import Space
from outrider.errors import InvalidParameter, MissingExtra, OutriderError
from outrider.progress import Progress, silent

__all__ = ["Ask", "Begin", "Found", "Trial", "search"]

Ask = Callable[[Prompt], Sample]
Begin = Callable[[Knobs], Ask]  # a setting in force; what it learns of drafts stays from prompt to prompt
REPEATS = 30  # settings in a row that were known already: there are no others
UNHURRIED = 2  # settings measured to their end before any is given up


@dataclass(frozen=True, slots=True)
class Trial:
    knobs: Knobs
    end: str  # "done", "pruned" or "failed"
    score: float  # over the prompts it was measured on; infinite for one that failed
    num_prompts: int
    why: str = ""  # it failed


@dataclass
class Found:
    trials: list[Trial] = field(default_factory=list)
    answers: dict[Prompt, Sequence[int]] = field(default_factory=dict)  # what the target says
    is_interrupted: bool = False

    @property
    def defaults(self) -> Trial:
        return self.trials[0]

    @property
    def challenger(self) -> Trial | None:
        """The best of those that are not the defaults, measured on all prompts."""
        others = [trial for trial in self.trials[1:] if trial.end == "done"]
        return min(others, key=lambda trial: trial.score, default=None)

    @property
    def is_exact(self) -> bool:
        return not any(trial.why == UNEQUAL for trial in self.trials)


UNEQUAL = "its answer is another than the target's"


class _OutOfTime(Exception):
    pass


def search(
    space: Space,
    prompts: Sequence[Prompt],
    begin: Begin,
    goal: str,
    *,
    until_s: float,
    clock: Callable[[], float],
    progress: Progress = silent,
    seed: int = 0,
) -> Found:
    """What was tried until the clock says `until_s`, or until Ctrl-C.

    Raises what measuring the defaults does, MissingExtra without Optuna, InvalidParameter where the defaults cannot be
    measured in that time, or the target answers nothing.
    """
    study, states = _study(seed, len({prompt.kind for prompt in prompts}))
    for knobs in space.first():
        study.enqueue_trial({name: getattr(knobs, name) for name in knobs.__struct_fields__})
    found = Found()
    known: dict[Knobs, Trial] = {}
    measuring = _Measuring(prompts, goal, found, until_s, clock, progress)
    num_repeated = 0
    try:
        while num_repeated < REPEATS and clock() < until_s:
            asked = study.ask()
            knobs = space.suggest(asked)
            num_repeated = num_repeated + 1 if knobs in known else 0
            trial = known.get(knobs) or measuring.measure(knobs, begin, asked)
            if knobs not in known:
                known[knobs] = trial
                found.trials.append(trial)
            is_done = trial.end == "done"
            state = states.COMPLETE if is_done else states.PRUNED if trial.end == "pruned" else states.FAIL
            study.tell(asked, trial.score if is_done else None, state=state)
    except _OutOfTime:  # the setting under way is not known well enough to be of use
        if not found.trials:
            raise InvalidParameter("there was no time even for the defaults; give a larger budget") from None
    except KeyboardInterrupt:
        if not found.trials:
            raise
        found.is_interrupted = True
    return found


class _Measuring:
    """One trial after the other, and the answers of the first."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        goal: str,
        found: Found,
        until_s: float,
        clock: Callable[[], float],
        progress: Progress,
    ) -> None:
        self._prompts = list(prompts)
        self._goal, self._found, self._until_s, self._clock, self._progress = goal, found, until_s, clock, progress
        self._begun_s = clock()
        self._taken_s: list[float] = []  # by the prompts so far

    def measure(self, knobs: Knobs, begin: Begin, asked: Any) -> Trial:
        is_first = not self._found.trials
        costs: dict[str, list[float]] = {}
        running, number = float("inf"), 0
        try:
            ask = begin(knobs)
            for number, prompt in enumerate(self._prompts, 1):
                sample = self._ask(ask, prompt)
                if is_first:
                    self._found.answers[prompt] = sample.token_ids
                elif list(sample.token_ids) != list(self._found.answers[prompt]):
                    return Trial(knobs, "failed", float("inf"), number, UNEQUAL)
                if len(sample.token_ids) > 1:
                    costs.setdefault(prompt.kind, []).append(cost(self._goal, sample))
                    running = score(costs)
                    asked.report(running, number)
                if not is_first and number < len(self._prompts) and asked.should_prune():
                    return Trial(knobs, "pruned", running, number)
        except OutriderError as error:
            if is_first:
                raise
            return Trial(knobs, "failed", float("inf"), number, str(error))
        if is_first:
            self._prompts = [prompt for prompt in self._prompts if len(self._found.answers[prompt]) > 1]
            if not self._prompts:
                raise InvalidParameter("the target answers these prompts with a token each; give others")
        return Trial(knobs, "done", running, number)

    def _ask(self, ask: Ask, prompt: Prompt) -> Sample:
        begun_s = self._clock()
        usual_s = statistics.median(self._taken_s) if self._taken_s else 0.0
        if begun_s + usual_s > self._until_s:
            raise _OutOfTime
        sample = ask(prompt)
        self._taken_s.append(self._clock() - begun_s)
        total_s = max(1, round(self._until_s - self._begun_s))
        self._progress("searching", min(total_s - 1, round(self._clock() - self._begun_s)), total_s)
        return sample


def _study(seed: int, least: int) -> tuple[Any, Any]:
    """`least`: prompts before a setting is given up."""
    try:
        import optuna
    except ImportError:
        raise MissingExtra('tuning needs optuna; run: pip install "outrider[tune]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=UNHURRIED, n_warmup_steps=least)
    return optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner), optuna.trial.TrialState
