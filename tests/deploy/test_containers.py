"""The container files: what can be said of them without building an image."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.deploy.files import CONTAINERFILES, DEPLOY, ROOT, instructions, last, settings, words

by_name = pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
LIMIT_S = 600
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    assert HADOLINT, "hadolint is part of the extra `dev`"
    return subprocess.run(
        [HADOLINT, "--no-color", "--config", DEPLOY / "hadolint.yaml", path], capture_output=True, text=True
    )


@by_name
def test_the_linter_has_nothing_to_say(path: Path) -> None:
    done = lint(path)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_would_say_it(tmp_path: Path) -> None:
    planted = tmp_path / "Containerfile"
    planted.write_text("FROM python:latest\nCMD outrider verifier\n")
    done = lint(planted)
    assert done.returncode != 0
    assert {"DL3007", "DL3025"} <= set(re.findall(r"DL\d+", done.stdout))


@by_name
def test_the_base_is_pinned_by_tag_and_the_same_in_both_stages(path: Path) -> None:
    name, tag = _args(path)["BASE"].split(":")
    assert re.fullmatch(r"\d+\.\d+\.\d+-[\w-]+", tag), tag
    assert name == "python"
    assert [rest.split()[0] for found, rest in instructions(path) if found == "FROM"] == ["${BASE}", "${BASE}"]
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert tuple(map(int, tag.split("-")[0].split(".")[:2])) >= tuple(map(int, asked.removeprefix(">=").split(".")))


@by_name
def test_torch_is_the_makefile_s_and_comes_before_what_asks_for_it(path: Path) -> None:
    makefile = re.search(r'"(torch==[\d.]+)"', (ROOT / "Makefile").read_text())
    assert makefile
    assert _args(path)["TORCH"] == makefile[1]
    runs = [rest for name, rest in instructions(path) if name == "RUN"]
    [torch], [rest] = ([i for i, run in enumerate(runs) if word in run] for word in ('"${TORCH}"', '".[${EXTRAS}]"'))
    assert torch < rest


@by_name
def test_what_is_copied_is_there_and_is_all_that_the_wheel_needs(path: Path) -> None:
    sources = [
        word
        for name, rest in instructions(path)
        if name == "COPY" and not rest.startswith("--from")
        for word in rest.split()[:-1]
    ]
    assert all(list(ROOT.glob(source)) for source in sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {*project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"], "pyproject.toml", "README.md"}
    assert needed | {"LICENSE"} == {source.split("/")[0] for source in sources}
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_in == set(sources)


@by_name
def test_the_extras_exist(path: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(_args(path)["EXTRAS"].split(",")) <= set(extras)
    named = re.findall(r"EXTRAS=([\w,]+)", path.read_text() + (ROOT / "docs" / "operating.md").read_text())
    assert set(",".join(named).split(",")) <= set(extras)


@by_name
def test_nobody_is_root_and_signals_arrive(path: Path) -> None:
    uid, gid = map(int, last(path, "USER").split(":"))
    assert min(uid, gid) >= 1000
    assert f"--uid {uid}" in last(path, "RUN")
    assert words(path, "ENTRYPOINT") == ["tini", "--", "outrider"]  # the exec form: no shell between
    assert "tini" in last(path, "RUN")
    assert last(path, "STOPSIGNAL") == "SIGTERM"


@by_name
def test_port_volume_and_health_check_are_those_of_the_command(path: Path) -> None:
    given = settings(words(path, "CMD"))
    assert int(last(path, "EXPOSE")) == given["port"]
    assert re.search(rf"OUTRIDER_HOME={last(path, 'VOLUME')}/\S", last(path, "ENV"))
    check = words(path, "HEALTHCHECK")
    assert check == ["python", "-m", "cloud_verifier.health", f"https://127.0.0.1:{given['port']}/healthz"]


@pytest.mark.parametrize(("extras", "is_wanted"), [("server,onnx", False), ("torch", True), ("onnx,export", True)])
def test_torch_is_installed_where_an_extra_wants_it(extras: str, is_wanted: bool, tmp_path: Path) -> None:
    """The line itself, run by the shell that a container has, with a pip that only tells what it was asked."""
    [line] = [rest for name, rest in instructions(DEPLOY / "Containerfile") if name == "RUN" and "case" in rest]
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\necho "$@"\n')
    pip.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", line.replace("/opt/outrider/bin/pip", str(pip))],
        env={"EXTRAS": extras, "TORCH": "torch==2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ("install --no-cache-dir torch==2\n" if is_wanted else "")


@pytest.mark.slow
def test_its_commands_make_an_environment_that_serves(tmp_path: Path) -> None:
    """Those of the first stage, in a folder with what is copied and nothing else; small extras, no compiler."""
    path = DEPLOY / "Containerfile"
    source, made = tmp_path / "src", tmp_path / "outrider"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= _args(path) | {"EXTRAS": "server,onnx"}
    stages = [i for i, (name, _) in enumerate(instructions(path)) if name == "FROM"]
    for name, rest in instructions(path)[stages[0] : stages[1]]:
        if name == "COPY":
            *found, target = rest.split()
            for pattern in found:
                _copy(ROOT, pattern, source / target)
        elif name == "RUN" and "apt-get" not in rest:
            command = rest.replace("/opt/outrider", str(made))
            source.mkdir(exist_ok=True)
            subprocess.run(["sh", "-ec", command], cwd=source, env=environment, check=True, timeout=LIMIT_S)
    for words_of in (["verifier", "--help"], ["models"]):
        subprocess.run([made / "bin" / "outrider", *words_of], env=environment, check=True, timeout=LIMIT_S)
    loaded = subprocess.run(
        [made / "bin" / "python", "-c", "import onnxruntime, cloud_verifier.server; print(cloud_verifier.__file__)"],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert str(made) in loaded.stdout


def _copy(root: Path, pattern: str, target: Path) -> None:
    """As COPY does: a folder's contents, or files into a folder."""
    for found in root.glob(pattern):
        if found.is_dir():
            shutil.copytree(found, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, target)


def _args(path: Path) -> dict[str, str]:
    pairs = (rest.partition("=") for name, rest in instructions(path) if name == "ARG")
    return {name: value for name, _, value in pairs}
