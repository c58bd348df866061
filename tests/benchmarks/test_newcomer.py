"""README's first commands, as a newcomer types them: with tiny models in place of the real ones, in this environment.

`make newcomer` is the same with nothing prepared.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from benchmarks.newcomer import (
    EXAMPLE,
    ROOT,
    Stumbled,
    Took,
    bytes_of,
    models_fetched,
    path_of,
    surroundings,
    table,
    walk,
)
from edge_runtime.parts import DEFAULT_DRAFTER, DEFAULT_TARGET
from export.recipe import load_recipe
from outrider import catalog
from outrider.manifest import Source, file_sha256, load_folder, write_manifest
from tests.export.models import write_gguf

LIMIT_S = 120


def write_store(home: Path) -> Path:
    """Tiny models by the names of the default pair, as if their recipes had made them."""
    for seed, name in enumerate((DEFAULT_TARGET, DEFAULT_DRAFTER)):
        file = write_gguf(home / name / f"{name}.gguf", seed=seed, max_context=192)
        catalog.install_gguf(file, home / name, name=name, licence="none", source=Source("random", file_sha256(file)))
        recipe = msgspec.to_builtins(load_recipe(catalog.recipes()[name]))
        write_manifest(
            home / name, msgspec.structs.replace(load_folder(home / name).manifest, recipe=recipe, report={})
        )
    return home


def checkout_with_this_environment(folder: Path) -> Path:
    """The working tree, with an environment in it that is ready: this one."""
    folder.mkdir()
    for path in ROOT.iterdir():
        if not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    environment = folder / ".venv"
    environment.mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name not in ("torch", "demo", "ready"):
            (environment / path.name).symlink_to(path)
    for name in ("torch", "demo"):
        (environment / name).touch()
    return folder


@pytest.fixture
def _one_core() -> Iterator[None]:
    """For what this test starts: so many threads as the machine has would be tried out, and wait for each other."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(usable)})
    yield
    os.sched_setaffinity(0, usable)


@pytest.mark.usefixtures("_one_core")
def test_the_path_of_the_readme_leads_to_answers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    commands, example = path_of((ROOT / "README.md").read_text())
    assert commands[0] == "make demo"
    environment = surroundings(tmp_path) | {
        "OUTRIDER_HOME": str(write_store(tmp_path / "store")),
        "PYTHONPATH": str(ROOT),
        "OMP_WAIT_POLICY": "passive",  # the cores are shared: threads that wait for each other must not spin
    }
    checkout = checkout_with_this_environment(tmp_path / "outrider")
    (checkout / EXAMPLE).write_text(example)
    rows = list(walk([*commands, f"python {EXAMPLE}"], checkout, environment, LIMIT_S))
    assert [row.words for row in rows if not row.is_stage] == [*commands, f"python {EXAMPLE}"]
    stages = [row.words for row in rows if row.is_stage]
    assert stages[:2] == [DEFAULT_TARGET, DEFAULT_DRAFTER]
    said = capfd.readouterr().err
    assert len(re.findall(r"\d+ tokens, [\d.]+ tokens/s, .* drafts accepted", said)) == 2  # the demo's and one's own
    assert said.index("session opened") > said.index(" drafts accepted")  # the verifier's log is not amid the answer
    assert "Traceback" not in said


def test_a_command_that_fails_ends_the_walk(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    environment = surroundings(tmp_path)
    first = "echo 'Downloading a (1 kB)'; echo '==> one'; echo 'Downloading b (2 kB)'; export WORD=kept"
    steps = walk([first, "echo $WORD; (exit 3)", "echo never"], tmp_path, environment, 30)
    assert [(row.words, row.is_stage, row.fetched) for row in (next(steps), next(steps))] == [
        ("one", True, 2000),
        (first, False, 3000),
    ]
    with pytest.raises(Stumbled, match="status 3"):
        next(steps)
    said = capfd.readouterr().err
    assert "kept" in said
    assert "never\n" not in said


def test_nothing_of_this_environment_is_lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_TARGET", "mine")
    environment = surroundings(tmp_path)
    assert "OUTRIDER_TARGET" not in environment
    assert os.listdir(environment["HOME"]) == []
    assert shutil.which("outrider", path=environment["PATH"]) is None
    assert shutil.which("python3", path=environment["PATH"]) is not None


def test_the_table_has_stages_below_their_command() -> None:
    whole = [Took("make demo", 3.4, is_stage=False, fetched=2_000_000), Took("ls", 0, is_stage=False)]
    rows = [Took("one stage", 1.2, is_stage=True), *whole]
    assert table(rows).splitlines()[2:] == [
        "| 1 | `make demo` | 3 | 2 |",
        "| | one stage | 1 | 0 |",
        "| 2 | `ls` | 0 | 0 |",
    ]


def test_what_pip_says_it_fetches_is_counted(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    wheel.write_bytes(bytes(1000))
    assert bytes_of(f"Processing {wheel} (from b)\n") == 1000
    assert bytes_of("  Downloading numpy-2.4.6-cp311.whl (16.9 MB)\n") == 16_900_000
    assert bytes_of("Downloading click-8.4.2-py3-none-any.whl (106 kB)\n") == 106_000
    assert bytes_of("Downloading is not what this is\n") == 0


def test_models_that_were_made_are_not_counted_as_fetched(tmp_path: Path) -> None:
    for name in (DEFAULT_TARGET, "smollm2-135m-instruct"):
        (tmp_path / name).mkdir()
    assert models_fetched(tmp_path) == catalog.cards()["smollm2-135m-instruct"].bytes
