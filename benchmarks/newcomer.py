"""`make newcomer`: README's first commands, typed by somebody who has nothing yet; how many, how long each takes.

The commands are read out of README, so that what is tried is what it says. They run one after the other in one shell,
in a fresh clone, with an empty home and a PATH of Python, git, make and compilers alone. Lines that begin with `==>`
are a command's stages. Knows nothing of what the commands do.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT_S = 45 * 60
MARK, STAGE = "\x1e", "==> "
FETCHED = re.compile(r" *Downloading \S+ \(([\d.]+) ([kMG])B\)")  # as pip says it where it is not quiet
TAKEN = re.compile(r" *Processing (/\S+\.whl)")  # from a folder that pip was told of
EXAMPLE = "example.py"
TOOLS = (
    *("sh", "bash", "env", "git", "make", "cc", "gcc", "c++", "g++", "ar", "as", "ld", "ranlib"),
    *("cat", "cp", "cut", "dirname", "basename", "expr", "grep", "ln", "ls", "mkdir", "mv", "rm", "sed", "tr", "touch"),
    *("uname", "tail", "head", "sort", "test", "true", "which"),
)


@dataclass(frozen=True, slots=True)
class Took:
    """A command, or a stage of one."""

    words: str
    seconds: float
    is_stage: bool
    fetched: int = 0  # bytes of libraries


class Stumbled(Exception):
    """A command of README failed, or took longer than all of them may."""


def path_of(readme: str) -> tuple[list[str], str]:
    """The commands of the first shell block, and the first Python example."""
    shell = re.search(r"```sh\n(.*?)```", readme, re.DOTALL)
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    if shell is None or example is None:
        raise ValueError("README has no shell block, or no Python example")
    lines = (re.sub(r"\s+#.*", "", line).strip() for line in shell[1].splitlines())
    return [line for line in lines if line], example[1]


def surroundings(folder: Path) -> dict[str, str]:
    """Variables of somebody who has nothing: an empty home, a PATH of TOOLS and this Python, the way to packages.

    And pip is to say what it fetches.
    """
    home, programs = folder / "home", folder / "programs"
    home.mkdir()
    programs.mkdir()
    for name in TOOLS:
        if (found := shutil.which(name)) is not None:
            (programs / name).symlink_to(Path(found).resolve())
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for name in ("python3", version):
        (programs / name).symlink_to((Path(sys.base_prefix) / "bin" / version).resolve())
    reach = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_proxy")}
    return {**reach, "HOME": str(home), "PATH": str(programs), "LANG": "C.UTF-8", "MAKEFLAGS": "QUIET="}


def walk(commands: Sequence[str], checkout: Path, environment: Mapping[str, str], limit_s: float) -> Iterator[Took]:
    """Run them in one shell until one fails; what they print goes to standard error. Raises Stumbled."""
    script = "".join(f"printf '{MARK}%s\\n' {number}\n{command}\n" for number, command in enumerate(commands))
    shell = subprocess.Popen(
        [str(Path(environment["PATH"].partition(":")[0]) / "bash"), "-e", "-c", script],
        cwd=checkout,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    began = stage_began = time.monotonic()
    command = stage = ""
    fetched = stage_fetched = 0
    assert shell.stdout is not None
    limit = threading.Timer(limit_s, os.killpg, (shell.pid, signal.SIGKILL))
    limit.start()
    try:
        for line in shell.stdout:
            now = time.monotonic()
            if not line.startswith((MARK, STAGE)):
                sys.stderr.write(line)
                fetched += bytes_of(line)
                continue
            if stage:
                yield Took(stage, now - stage_began, is_stage=True, fetched=fetched - stage_fetched)
            if line.startswith(MARK):
                if command:
                    yield Took(command, now - began, is_stage=False, fetched=fetched)
                command, stage, began, fetched = commands[int(line[1:])], "", now, 0
            else:
                stage, stage_began, stage_fetched = line.removeprefix(STAGE).strip(), now, fetched
            sys.stderr.write(f"\n{STAGE}{stage or command}\n")
        now = time.monotonic()
        if shell.wait() != 0:
            raise Stumbled(f"{command!r} ended with status {shell.returncode} after {now - began:.0f} s")
        if stage:
            yield Took(stage, now - stage_began, is_stage=True, fetched=fetched - stage_fetched)
        yield Took(command, now - began, is_stage=False, fetched=fetched)
    finally:
        limit.cancel()
        shell.stdout.close()
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()


def bytes_of(line: str) -> int:
    """What pip fetched, if this is where it says so."""
    if found := FETCHED.match(line):
        return int(float(found[1]) * {"k": 1e3, "M": 1e6, "G": 1e9}[found[2]])
    found = TAKEN.match(line)
    return Path(found[1]).stat().st_size if found else 0


def models_fetched(store: Path) -> int:
    """Bytes of the models in the store that were fetched, not made."""
    cards = (tomllib.loads(path.read_text()) for path in sorted((ROOT / "models").glob("*.toml")))
    return sum(card["bytes"] for card in cards if card["kind"] == "card" and (store / card["name"]).is_dir())


def size_of(folder: Path) -> int:
    """Bytes of the files below it; links are not followed."""
    paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in paths)


def table(rows: Sequence[Took]) -> str:
    """Commands numbered, each with its stages below it; rows come as `walk` gives them, a command after its stages."""
    lines, stages, number = ["| | | seconds | MB of libraries |", "|---|---|---|---|"], [], 0
    for row in rows:
        if row.is_stage:
            stages.append(f"| | {row.words} | {row.seconds:.0f} | {row.fetched / 1e6:.0f} |")
            continue
        number += 1
        lines += [f"| {number} | `{row.words}` | {row.seconds:.0f} | {row.fetched / 1e6:.0f} |", *stages]
        stages = []
    return "\n".join([*lines, *stages])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.newcomer", description=__doc__)
    help_folder = "a new folder for the clone, which is left there (8 GB); default: a temporary one"
    parser.add_argument("--folder", type=Path, help=help_folder)
    options = parser.parse_args(arguments)
    commands, example = path_of((ROOT / "README.md").read_text())
    with tempfile.TemporaryDirectory(prefix="newcomer-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        environment, checkout = surroundings(folder), folder / "outrider"
        subprocess.run([str(shutil.which("git")), "clone", "--quiet", f"file://{ROOT}", str(checkout)], check=True)
        (checkout / EXAMPLE).write_text(example)
        rows: list[Took] = []
        try:
            for row in walk([*commands, f"python {EXAMPLE}"], checkout, environment, LIMIT_S):
                rows.append(row)
        except Stumbled as stumbled:
            print(f"newcomer: {stumbled}", file=sys.stderr)
        print(table(rows))
        first = next((row.seconds for row in rows if not row.is_stage), 0.0)
        print(f"\nFirst verified answer after 1 command and {first / 60:.1f} minutes.")
        store = checkout / "models" / "store"
        print(f"Models: {models_fetched(store) / 1e6:,.0f} MB fetched; {size_of(store) / 1e6:,.0f} MB with those made.")
        print(f"Environment: {size_of(checkout / '.venv') / 1e6:,.0f} MB.")
    return 0 if len([row for row in rows if not row.is_stage]) == len(commands) + 1 else 1


if __name__ == "__main__":
    sys.exit(main())
