"""`outrider generate` without a verifier, and `outrider sync` when there is one: tiny real models, real processes."""

import json
import socket
from pathlib import Path

import pytest

from edge_runtime.journal import Asked, Journal, Lease
from outrider import catalog
from outrider.manifest import Source, file_sha256
from tests.edge_runtime.cli.test_generate import Run, home, run, verifier
from tests.export.models import write_gguf

__all__ = ["home", "run"]  # fixtures

ASK = ("generate", "hello there", "--threads", "1", "--max-tokens", "40", "--context", "256", "--json")
VERIFIER = ("--threads", "1", "--context", "256")


@pytest.fixture(autouse=True)
def _store(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal for each test, one store for all; `other` has the target's vocabulary and other weights."""
    if not (home / "other").exists():
        file = write_gguf(home / "other" / "other.gguf", is_tied=True)
        source = Source("random", file_sha256(file))
        catalog.install_gguf(file, home / "other", name="other", licence="none", source=source)
    for model in home.iterdir():
        if model.is_dir() and not model.name.startswith("journal"):
            (tmp_path / model.name).symlink_to(model)
    monkeypatch.setenv("OUTRIDER_HOME", str(tmp_path))


@pytest.fixture
def nowhere() -> str:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.parametrize("drafter", ["tiny", "other"])
def test_what_was_answered_offline_is_put_right_later(run: Run, nowhere: str, drafter: str) -> None:
    want = json.loads(run(*ASK, "--target", "tiny", "--drafter", "none").stdout)
    alone = json.loads(run(*ASK, "--target", drafter, "--drafter", "none").stdout)
    offline = run(*ASK, "--target", "tiny", "--drafter", drafter, "--verifier", nowhere)
    assert offline.returncode == 0, offline.stderr
    got = json.loads(offline.stdout)
    assert got["token_ids"] == alone["token_ids"]
    assert (got["counts"]["tokens"], got["counts"]["provisional"]) == (0, len(alone["token_ids"]))
    with verifier(*VERIFIER) as (address, _):
        synced = run("sync", "--verifier", address, "--json")
        assert synced.returncode == 0, synced.stderr
        put_right = json.loads(synced.stdout)
        assert put_right["text"] == want["text"]
        assert put_right["finish_reason"] == want["finish_reason"]
        ids = zip(alone["token_ids"], want["token_ids"], strict=False)
        num_right = next((n for n, (mine, right) in enumerate(ids) if mine != right), len(alone["token_ids"]))
        assert (num_right == len(want["token_ids"])) == (drafter == "tiny")
        assert put_right["counts"] == {
            "confirmed": num_right,
            "retracted": len(alone["token_ids"]) - num_right,
            "tokens": len(want["token_ids"]),
        }
        again = run("sync", "--verifier", address)
        assert (again.returncode, again.stdout) == (0, "")
        assert "Nothing waits" in again.stderr
    with Journal() as journal:
        [generation] = journal.generations(journal.conversations()[0].name)
        assert generation.token_ids == want["token_ids"]
        assert generation.num_verified == len(want["token_ids"])
        assert generation.target == want["target"]
        assert generation.finish == want["finish_reason"]


def test_a_person_is_told_what_is_the_drafter_s(run: Run, nowhere: str) -> None:
    text = json.loads(run(*ASK, "--target", "tiny", "--drafter", "none").stdout)["text"]
    ask = [word for word in ASK if word != "--json"]
    done = run(*ask, "--target", "tiny", "--drafter", "tiny", "--verifier", nowhere)
    assert done.returncode == 0
    assert done.stdout == text + "\n"
    assert "the drafter answers alone" in done.stderr
    assert "the drafter's own" in done.stderr


def test_strict_fails_and_leaves_nothing_to_go_on_with(run: Run, nowhere: str) -> None:
    done = run(*ASK, "--target", "tiny", "--drafter", "tiny", "--verifier", nowhere, "--strict")
    assert done.returncode == 1
    assert "[link_lost]" in done.stderr
    assert done.stdout == ""
    with Journal() as journal:
        assert journal.conversations() == []


def test_without_a_journal_nothing_is_kept(run: Run, nowhere: str, tmp_path: Path) -> None:
    run(*ASK, "--target", "tiny", "--drafter", "tiny", "--verifier", nowhere, "--no-journal")
    assert not list(tmp_path.glob("journal*"))


def test_stop_strings_hold_after_a_sync(run: Run, nowhere: str) -> None:
    text = json.loads(run(*ASK, "--target", "tiny", "--drafter", "none").stdout)["text"]
    stop = text[3:5]
    run(*ASK, "--target", "tiny", "--drafter", "other", "--verifier", nowhere, "--stop", stop)
    with verifier(*VERIFIER) as (address, _):
        done = run("sync", "--verifier", address, "--json")
    assert json.loads(done.stdout)["text"] == text[: text.index(stop)]


def test_what_is_being_written_is_left_alone(run: Run, nowhere: str) -> None:
    run(*ASK, "--target", "tiny", "--drafter", "tiny", "--verifier", nowhere)
    with Journal() as journal:
        [generation] = journal.pending()
        lease = Lease(journal.path, generation.id)
        try:
            with verifier(*VERIFIER) as (address, _):
                done = run("sync", "--verifier", address)
        finally:
            lease.release()
        assert (done.returncode, done.stdout) == (0, "")
        assert journal.pending() == [generation]


def test_one_that_cannot_be_done_does_not_stop_the_others(run: Run, nowhere: str) -> None:
    with Journal() as journal:
        journal.begin(Asked([5], 4, vocabulary="a vocabulary that no model here has"))
    run(*ASK, "--target", "tiny", "--drafter", "tiny", "--verifier", nowhere)
    with verifier(*VERIFIER) as (address, _):
        done = run("sync", "--verifier", address)
    assert done.returncode == 1
    assert "[not_here]" in done.stderr
    assert "answer 2: " in done.stdout


def test_a_verifier_that_is_not_there(run: Run, nowhere: str) -> None:
    run(*ASK, "--target", "tiny", "--drafter", "tiny", "--verifier", nowhere)
    done = run("sync", "--verifier", nowhere)
    assert done.returncode == 1
    assert "[link_lost]" in done.stderr


def test_a_journal_that_cannot_be_used_withholds_no_answer(run: Run, nowhere: str, tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a journal, but somebody's file")
    done = run(*ASK, "--target", "tiny", "--drafter", "tiny", "--verifier", nowhere)
    assert done.returncode == 0
    assert json.loads(done.stdout)["counts"]["provisional"] > 0
    assert "[invalid_journal]" in done.stderr
    assert (tmp_path / "journal.sqlite").read_bytes() == b"not a journal, but somebody's file"
    needed = run(*ASK, "--target", "tiny", "--drafter", "tiny", "--past")
    assert needed.returncode == 1
    assert "[invalid_journal]" in needed.stderr


def test_what_was_read_before_is_drafted_from_on_request(run: Run) -> None:
    ask = [*ASK, "--target", "tiny", "--drafter", "lookup"]
    first = json.loads(run(*ask, "--past").stdout)
    assert "past" not in first["counts"]["accepted_by"]
    again = json.loads(run(*ask, "--past").stdout)
    assert again["counts"]["accepted_by"]["past"] > 0
    assert again["token_ids"] == first["token_ids"]
    assert "past" not in json.loads(run(*ask).stdout)["counts"]["accepted_by"]
