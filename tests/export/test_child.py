import subprocess
from pathlib import Path

import pytest

from export import child
from export.child import require, run_child
from outrider.errors import DiskFull, EngineError, InvalidModel, MissingExtra

CODE = """
import os, sys
print("a warning nobody asked for", file=sys.stderr)
job = sys.stdin.read()
{body}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a body of code as the child; returns what it told of its progress."""

    def run(body: str, job: bytes = b"") -> list[tuple[str, int, int]]:
        told: list[tuple[str, int, int]] = []
        (tmp_path / "made_up_child.py").write_text(CODE.format(body=body))
        monkeypatch.delenv("PYTHONPATH", raising=False)  # as most people have it
        monkeypatch.setattr(child, "__file__", str(tmp_path / "export" / "child.py"))
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        run_child("made_up_child", job, work, lambda *stage: told.append(stage))
        return told

    return run


def test_lines_of_the_child_become_progress(run) -> None:
    body = """
print("stage: one")
sys.stderr.write("\\r 10%| 1/10 [00:00<\\r100%| 10/10 [00:00<\\n")
print("stage: two"); print("[ 3/ 29] blk.0"); print("Reading decoder layer 7"); print("stage: three")
"""
    assert run(body) == [
        ("one", 0, 0),
        ("one", 1, 10),
        ("one", 10, 10),
        ("one", 10, 10),
        ("two", 0, 0),
        ("two", 3, 29),
        ("two", 7, 0),
        ("two", 1, 1),
        ("three", 0, 0),
        ("three", 1, 1),
    ]


def test_the_job_and_a_place_for_all_that_is_temporary_reach_the_child(run, tmp_path: Path) -> None:
    run('open("here", "w").write(job + " " + os.environ["TMPDIR"] + " " + os.environ["HF_HUB_OFFLINE"])', b"the job")
    assert (tmp_path / "work" / "here").read_text() == f"the job {tmp_path / 'work'} 1"


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ('raise KeyError("no such layer")', InvalidModel, r"\(KeyError: 'no such layer'\); try the other builder"),
        ("sys.exit('cannot')", InvalidModel, r"\(cannot\)"),
        ("raise OSError(28, os.strerror(28))", DiskFull, "disk filled up"),
        ("os.kill(os.getpid(), 9)", EngineError, "killed by signal 9"),
    ],
)
def test_a_failed_child_is_one_sentence(run, body: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(body)


def test_an_interrupted_wait_leaves_no_child(run, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*arguments, **settings):
        started.append(real(*arguments, **settings))
        return started[-1]

    def interrupt(output, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(child, "follow", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run("import time; time.sleep(600)")
    assert started[0].poll() == -9


def test_a_missing_library_is_named_before_the_work() -> None:
    require("json", "sys")
    with pytest.raises(MissingExtra, match=r"needs no_such_library.*outrider\[export\]"):
        require("json", "no_such_library")


def test_the_child_imports_nothing_from_its_working_folder(run, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "json.py").write_text("raise SystemExit('a stranger')")
    assert run("import json") == []
