"""What the files in deploy/ say, read for the tests: instructions, unit settings, manifests, commands."""

import configparser
import json
import shlex
from pathlib import Path
from typing import Any

import typer
import yaml

from edge_runtime.cli.frame import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILES = sorted(DEPLOY.glob("Containerfile*"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """(name, rest) of each line, those that go on joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.strip().partition(" ") for line in joined) if name]


def last(path: Path, name: str) -> str:
    """What the last such instruction of a Containerfile says."""
    return [rest for found, rest in instructions(path) if found == name][-1]


def words(path: Path, name: str) -> list[str]:
    """An instruction in exec form, the list that follows it."""
    rest = last(path, name)
    found: list[str] = json.loads(rest[rest.index("[") :])
    return found


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "outrider-verifier.service")
    return parser["Service"]


def manifest(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((DEPLOY / "kubernetes" / f"{name}.yaml").read_text(), yaml.CSafeLoader)
    return found


def pod() -> dict[str, Any]:
    found: dict[str, Any] = manifest("deployment")["spec"]["template"]["spec"]
    return found


def container() -> dict[str, Any]:
    [found] = pod()["containers"]
    return dict(found)


def arguments() -> dict[str, list[str]]:
    """What each file gives to `outrider`, by the file's name."""
    told = {path.name: words(path, "CMD") for path in CONTAINERFILES}
    told["outrider-verifier.service"] = shlex.split(unit()["ExecStart"])[1:]
    told["deployment.yaml"] = container()["args"]
    return told


def settings(given: list[str]) -> dict[str, Any]:
    """The arguments as `outrider` reads them. Raises click's UsageError for a word that it does not know."""
    group: Any = typer.main.get_command(app)
    command = group.get_command(None, given[0])
    context = command.make_context(given[0], given[1:])
    return dict(context.params)
