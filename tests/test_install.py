"""What an installation has: its version, its files, and which commands work with few extras.

The slow half builds the wheel and installs it as a person would, with the package index and nothing else
(`make wheel-test`). The quick half hides from this environment's Python what the base does not bring.
"""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edge_runtime.cli.frame import COMMANDS, GROUPS
from edge_runtime.links import InProcessLink
from outrider import catalog
from outrider.manifest import Source, file_sha256
from tests.edge_runtime.cli.test_generate import COMMAND
from tests.export.models import write_gguf, write_hf
from tests.signing import generate, signer, signing_loop

ROOT = Path(__file__).parent.parent
LEAN = ROOT / "tests" / "lean.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LIMIT_S = 600
HELP = [["--help"], *([*name.split(), "--help"] for name in (*COMMANDS, *GROUPS))]
WORK = [
    *HELP,
    ["--version"],
    ["models", "--json"],
    ["verifier", "token", "add", "laptop", "--tokens", "TOKENS"],
    ["verifier", "token", "list", "--tokens", "TOKENS"],
    ["sync", "--verifier", "http://127.0.0.1:9"],
]
# What asks for more than the base, and the extra that it then names.
WANT = {
    ("generate", "hi", "--target", "tiny", "--drafter", "none"): "gguf",
    ("generate", "hi", "--target", "tiny", "--drafter", "none", "--grammar", "GRAMMAR"): "constraint",
    ("profile", "tiny"): "gguf",
    ("verifier", "tiny", "--port", "0"): "server",
    ("serve", "--target", "tiny", "--port", "0"): "server",
    ("export", "GGUF", "--format", "gguf"): "gguf",
    ("export", "GGUF", "--format", "onnx"): "export",
    ("receipt", "check", "RECEIPT"): "server",
    ("bench", "pair", "--target", "tiny", "--peers", "none"): "bench",
    ("bench", "wire"): "bench",
}
Done = tuple[int, str, str]


def base_requirements() -> set[str]:
    """The distributions that the base brings, with all that those want in turn."""
    found: set[str] = set()
    waiting = [(Requirement(line), frozenset[str]()) for line in PROJECT["dependencies"]]
    while waiting:
        requirement, of = waiting.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in of or {""}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in found:
            found.add(name)
            lines = importlib.metadata.requires(name) or []
            waiting += [(Requirement(line), frozenset(requirement.extras)) for line in lines]
    return found


def hidden() -> list[str]:
    """The modules of this environment that the base does not bring."""
    base = base_requirements() | {"outrider"}
    return sorted(
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if not base & {canonicalize_name(name) for name in distributions}
    )


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store with one tiny model, and the files that commands are given."""
    folder = tmp_path_factory.mktemp("given")
    tiny = folder / "store" / "tiny"
    file = write_gguf(tiny / "tiny.gguf")
    catalog.install_gguf(file, tiny, name="tiny", licence="none", source=Source("random", file_sha256(file)))
    (folder / "grammar").write_text('start: "a"\n')
    loop = signing_loop(signer())
    try:
        (folder / "receipt").write_bytes(generate(InProcessLink(loop)).receipt())
    finally:
        loop.close()
    return {"store": folder / "store", "GGUF": file, "GRAMMAR": folder / "grammar", "RECEIPT": folder / "receipt"}


def run_all(python: Path | str, given: dict[str, Path], hide: list[str], folder: Path) -> dict[tuple[str, ...], Done]:
    """Every command line above, by its words."""
    paths = {name: str(path) for name, path in given.items()} | {"TOKENS": str(folder / "tokens.json")}
    lines = [*map(tuple, WORK), *WANT]
    job = {"hidden": hide, "commands": [[paths.get(word, word) for word in line] for line in lines]}
    environment = os.environ | {"OUTRIDER_HOME": paths["store"], "COLUMNS": "200"}
    if not hide:
        environment.pop("PYTHONPATH", None)  # the wheel's modules, not the checkout's
    done = subprocess.run(
        [str(python), "-P", str(LEAN), json.dumps(job)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(lines, map(tuple, json.loads(done.stdout)), strict=True))


def check_base(told: dict[tuple[str, ...], Done]) -> None:
    for words in map(tuple, WORK):
        status, out, err = told[words]
        assert status == 0, (words, out, err)
    assert told["--version",][1] == f"outrider {PROJECT['version']}\n"
    names = {row["name"] for row in json.loads(told["models", "--json"][1])["models"]}
    assert {path.stem for path in (ROOT / "models").glob("*.toml")} <= names
    for words, extra in WANT.items():
        status, out, err = told[words]
        assert (status, out) == (2, ""), (words, out, err)
        last = err.strip().splitlines()[-1]
        assert re.search(rf'run: pip install "outrider\[{extra}\]" \[missing_extra\]$', last), (words, err)
        assert "Traceback" not in err


def test_the_version_is_one() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first
    assert first[1] == PROJECT["version"]  # which the command says below


def test_with_no_extra_what_needs_none_works_and_the_rest_names_it(given: dict[str, Path], tmp_path: Path) -> None:
    hide = hidden()
    assert {"onnxruntime", "llama_cpp", "torch", "transformers", "fastapi", "uvicorn", "llguidance"} <= set(hide)
    assert not {"numpy", "typer", "tokenizers", "httpx"} & set(hide)
    check_base(run_all(sys.executable, given, hide, tmp_path))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)])
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's folder of programs, with the wheel and no extra."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    run([sys.executable, "-m", "venv", str(folder)])
    programs = folder / "bin"
    run([str(programs / "pip"), "install", "--quiet", str(wheel)])
    return programs


def run(words: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_the_wheel_holds_the_program_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    info = f"outrider-{PROJECT['version']}.dist-info"
    packages = ("outrider", "cloud_verifier", "edge_runtime", "export", "benchmarks")
    assert {name.split("/")[0] for name in names} == {*packages, info}
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    cards = {path.name for path in (ROOT / "models").glob("*.toml")}
    assert {name.split("/")[-1] for name in names if name.startswith("outrider/cards/")} == cards
    assert f"{info}/licenses/LICENSE" in names
    sources = subprocess.run(["git", "ls-files", *packages], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name for name in names if name.split("/")[0] in packages and "/cards/" not in name} == set(
        sources.stdout.split()
    )
    assert f"\nVersion: {PROJECT['version']}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert {f"Provides-Extra: {extra}" for extra in PROJECT["optional-dependencies"]} <= set(metadata.splitlines())


@pytest.mark.slow
def test_the_wheel_with_no_extra(installed: Path, given: dict[str, Path], tmp_path: Path) -> None:
    check_base(run_all(installed / "python", given, [], tmp_path))
    assert run([str(installed / "outrider"), "--version"]).stdout == f"outrider {PROJECT['version']}\n"
    assert "Usage" in run([str(installed / "outrider"), "generate", "--help"]).stdout


@pytest.mark.slow
def test_the_wheel_with_onnx_answers_and_loads_no_more(
    installed: Path, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny model made here, run there, where no PyTorch, no llama.cpp and no service is installed."""
    store = tmp_path / "store"
    source = write_hf(tmp_path / "llama", "llama")
    words = ["export", str(source), "--format", "onnx", "--no-report", "--output", str(store / "tiny")]
    run([*COMMAND, *words], OUTRIDER_HOME=str(store), PYTHONPATH=str(ROOT))
    run([str(installed / "pip"), "install", "--quiet", f"{wheel}[onnx]"])
    listed = run([str(installed / "pip"), "list", "--format", "json"]).stdout
    assert not {"torch", "transformers", "llama-cpp-python", "fastapi", "onnx"} & {
        entry["name"] for entry in json.loads(listed)
    }
    ask = ["generate", "hello", "--target", "tiny", "--drafter", "lookup", "--max-tokens", "8", "--json"]
    done = run([str(installed / "outrider"), *ask], OUTRIDER_HOME=str(store))
    assert len(json.loads(done.stdout)["token_ids"]) > 0
