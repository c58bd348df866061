"""Settings that were found better, kept in the store: for which target, machine and goal, and on what evidence.

    home()/tuned/NAME.json

Whatever is wrong with one is told in a line and the defaults are used: it could only have changed speed.
"""

import re
from pathlib import Path

import msgspec

from edge_runtime.knobs import Knobs
from edge_runtime.parts import DEFAULT_TARGET, drafting_model
from edge_runtime.tuning.compare import Comparison
from edge_runtime.tuning.goals import GOALS
from outrider import catalog
from outrider.engines.machine import num_physical_cores, processor
from outrider.errors import InvalidParameter, OutriderError
from outrider.whole_file import write_whole

__all__ = [
    "AUTO",
    "OFF",
    "Tuned",
    "check_name",
    "choose",
    "choose_for",
    "default_name",
    "fingerprint",
    "machine",
    "save",
    "stored",
]

AUTO, OFF = "auto", "off"
FOLDER = "tuned"
LONGEST = 64  # characters of a name
NAME = re.compile(rf"[A-Za-z0-9][\w.-]{{0,{LONGEST - 1}}}", re.ASCII)
MOST_BYTES = 1 << 20


class Tuned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`target` is a fingerprint. `verifier`: the address of the one that it was found with; "" for a pair."""

    name: str
    target: str
    machine: str
    goal: str
    verifier: str
    knobs: Knobs
    drafter: str  # its weights' fingerprint; "" for one without any
    evidence: Comparison


def machine() -> str:
    """All of the machine that a setting hangs on."""
    return f"{processor()}, {num_physical_cores()} cores"


def check_name(name: str) -> None:
    """Raises InvalidParameter for what cannot name a file, or means something else."""
    if not NAME.fullmatch(name) or name in (AUTO, OFF):
        raise InvalidParameter(f"{name!r} cannot name a tuned setting; give letters, digits, dots and dashes")


def default_name(target: str, goal: str) -> str:
    """Of a setting for a target of any name.

    >>> default_name("./my model", "latency")
    'my-model-latency'
    """
    plain = re.sub(r"[^\w.-]", "-", target, flags=re.ASCII).lstrip("._-") or "target"
    return f"{plain[: LONGEST - len(goal) - 1]}-{goal}"


def save(tuned: Tuned) -> Path:
    """Written in one step. Raises InvalidParameter."""
    check_name(tuned.name)
    path = _path(tuned.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, msgspec.json.format(msgspec.json.encode(tuned), indent=2) + b"\n")
    except OSError as error:
        raise InvalidParameter(f"{path} cannot be written ({error.strerror}); set OUTRIDER_HOME") from None
    return path


def fingerprint(knobs: Knobs) -> str:
    """Of the drafter's weights, "" where it has none. Raises what `find` does."""
    model = drafting_model(knobs.drafter)
    return catalog.find(model).manifest.fingerprint if model else ""


def stored() -> list[str]:
    """Names, in order of goals that matter most to who waits: what `auto` tries, sound or not."""
    paths = sorted((catalog.home() / FOLDER).glob("*.json"))
    return sorted((path.stem for path in paths), key=lambda name: (_goal_rank(name), name))


def choose(how: str, *, target: str, verifier: str = "") -> tuple[Tuned | None, str]:
    """The setting to use, and why not, in a line, where one was meant and is not used.

    `how` is a name, "auto" or "off". Of several that fit, auto takes the one for latency first. `target` is a
    fingerprint, "" where it is whatever the verifier runs.
    """
    if how == OFF:
        return None, ""
    notice = ""
    for name in stored() if how == AUTO else [how]:
        try:
            return _load(name, target, verifier), ""
        except _Foreign as error:
            notice = notice or (str(error) if how != AUTO else "")  # auto looks for those that fit
        except _Unusable as error:
            notice = notice or str(error)
    return None, notice and f"{notice}; the defaults are used, run outrider tune for others"


def choose_for(
    how: str, *, target: str | None, verifier: str | None, drafter: str, threads: int
) -> tuple[Tuned | None, str]:
    """As `choose`, for what a command is given: a drafter or threads that were chosen by hand leave a setting out.

    Raises what `find` does for the target.
    """
    if drafter != "auto" or threads:
        return None, "" if how in (AUTO, OFF) else f"{how} is not used beside --drafter or --threads"
    is_here = verifier is None or target is not None
    fingerprint = catalog.find(target or DEFAULT_TARGET).manifest.fingerprint if is_here else ""
    return choose(how, target=fingerprint, verifier=verifier or "")


class _Unusable(Exception):
    """Of a setting, and why."""


class _Foreign(_Unusable):
    """It is sound, and of something else."""


def _load(name: str, target: str, verifier: str) -> Tuned:
    if not NAME.fullmatch(name) or not _path(name).exists():
        raise _Unusable(f"there is no tuned setting {name!r}")
    try:
        tuned = _read(name)
    except (OSError, ValueError) as error:
        raise _Unusable(f"the tuned setting {name} cannot be read ({error})") from None
    if tuned.machine != machine():
        raise _Foreign(f"the tuned setting {name} is of another machine ({tuned.machine})")
    if tuned.verifier != verifier or target not in ("", tuned.target):
        raise _Foreign(f"the tuned setting {name} is of another target")
    try:
        _check(tuned.knobs)
        is_same = fingerprint(tuned.knobs) == tuned.drafter
    except (ValueError, OutriderError) as error:
        raise _Unusable(f"the tuned setting {name} cannot be used ({error})") from None
    if not is_same:
        raise _Unusable(f"the drafter of the tuned setting {name} has changed since")
    return tuned


def _read(name: str) -> Tuned:
    with _path(name).open("rb") as file:
        return msgspec.json.decode(file.read(MOST_BYTES), type=Tuned)


def _check(knobs: Knobs) -> None:
    """Raises ValueError for values that nobody could have written in good faith."""
    cores = num_physical_cores()
    bounds = {
        "drafter_threads": (knobs.drafter_threads, 0, cores),
        "verifier_threads": (knobs.verifier_threads, 0, cores),
        "max_drafts": (knobs.max_drafts, 1, 31),
        "max_ahead": (knobs.max_ahead, 0, 256),
        "patience_ms": (knobs.patience_ms, 0, 60_000),
        "min_reach": (knobs.min_reach, 0.0, 1.0),
    }
    for name, (value, least, most) in bounds.items():
        if not least <= value <= most:
            raise ValueError(f"{name} is {value}")


def _goal_rank(name: str) -> int:
    try:
        return GOALS.index(_read(name).goal)
    except (OSError, ValueError):
        return len(GOALS)


def _path(name: str) -> Path:
    return catalog.home() / FOLDER / f"{name}.json"
