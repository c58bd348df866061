"""`outrider chat` as a person meets it: a tiny real model, a real service, pipes and a terminal."""

import io
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_runtime.answer import Piece
from edge_runtime.cli.lines import MessageReader
from edge_runtime.cli.screen import DIM, DRAFTED, NORMAL, STRUCK, Screen
from edge_runtime.events import Retracted, Token
from edge_runtime.journal import Journal
from outrider import catalog
from outrider.manifest import Source, file_sha256
from tests.edge_runtime.cli.test_generate import LIMIT_S, Run, home, run, verifier
from tests.export.models import write_gguf
from tests.warm import Forked

__all__ = ["home", "run"]  # fixtures

TINY = ("--target", "tiny", "--threads", "1", "--context", "256", "--max-tokens", "12")


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_HOME", str(home))
        with verifier("--threads", "1", "--context", "256") as (address, _):
            yield address


@pytest.fixture(autouse=True)
def _store(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal for each test, one store for all; `other` has the target's vocabulary and other weights."""
    if not (home / "other").exists():
        file = write_gguf(home / "other" / "other.gguf", is_tied=True)
        source = Source("random", file_sha256(file))
        catalog.install_gguf(file, home / "other", name="other", licence="none", source=source)
    for name in ("tiny", "other"):
        (tmp_path / name).symlink_to(home / name)
    monkeypatch.setenv("OUTRIDER_HOME", str(tmp_path))


def answers(stdout: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_lines_are_answered_one_after_the_other_each_with_all_that_was_said(run: Run) -> None:
    done = run("chat", "trip", *TINY, "--json", stdin="hello\n\nhello hello\n")
    assert done.returncode == 0, done.stderr
    first, second = answers(done.stdout)
    alone = json.loads(run("generate", "hello", *TINY, "--json").stdout)
    assert first["token_ids"] == alone["token_ids"]
    with Journal() as journal:
        _, two = journal.generations("trip")
    assert [message["role"] for message in two.asked.messages] == ["user", "assistant", "user"]
    assert two.asked.messages[1]["content"] == first["text"]
    assert two.token_ids == second["token_ids"]


def test_a_conversation_goes_on_where_it_was(run: Run) -> None:
    whole = run("chat", "whole", *TINY, "--json", "--system", "Be brief.", stdin="hello\nhello hello\n")
    run("chat", "parts", *TINY, "--json", "--system", "Be brief.", stdin="hello\n")
    for more in (["--continue"], ["parts", "--continue"]):
        rest = run("chat", *more, *TINY, "--json", stdin="hello hello\n")
        assert rest.returncode == 0, rest.stderr
    with Journal() as journal:
        second, third = journal.generations("parts")[1:]
    assert second.token_ids == answers(whole.stdout)[1]["token_ids"]
    assert [message["role"] for message in third.asked.messages] == ["system", *["user", "assistant"] * 2, "user"]


def test_the_text_alone_goes_to_a_pipe(run: Run) -> None:
    texts = [answer["text"] for answer in answers(run("chat", *TINY, "--json", stdin="hello\nhello\n").stdout)]
    done = run("chat", *TINY, "--no-journal", stdin="hello\nhello\n/help\n/stats\n/quit\nnever read\n")
    assert done.stdout == "".join(f"{text}\n" for text in texts)
    assert "/save FILE" in done.stderr
    assert "2 answers: " in done.stderr
    with Journal() as journal:
        assert len(journal.conversations()) == 1


def test_the_link_may_be_cut_and_what_was_said_without_it_is_put_right(run: Run, address: str) -> None:
    remote = ("chat", "cut", *TINY, "--json", "--verifier", address, "--drafter", "other")
    want = answers(run("chat", *TINY, "--json", "--drafter", "none", stdin="hello\nhello hello\n").stdout)
    done = run(*remote, stdin="/offline\nhello\n/online\n/sync\nhello hello\n/stats\n")
    assert done.returncode == 0, done.stderr
    offline, synced, after = answers(done.stdout)
    assert offline["counts"]["provisional"] == len(offline["token_ids"]) > 0
    assert offline["token_ids"] != want[0]["token_ids"]
    assert synced["text"] == want[0]["text"]
    assert synced["counts"]["retracted"] > 0
    assert after["token_ids"] == want[1]["token_ids"]  # of a conversation in which the first answer was put right
    assert after["counts"]["provisional"] == 0
    with Journal() as journal:
        assert journal.pending() == []


def test_each_mode_gives_the_target_s_words(run: Run, address: str) -> None:
    lines = "".join(f"/mode {mode}\n/new\nhello\n" for mode in ("hybrid", "cloud", "strict", "local"))
    done = run("chat", *TINY, "--json", "--verifier", address, "--drafter", "tiny", stdin=lines)
    assert done.returncode == 0, done.stderr
    hybrid, cloud, strict, local = answers(done.stdout)
    assert hybrid["token_ids"] == cloud["token_ids"] == strict["token_ids"] == local["token_ids"]
    assert "tiny" not in cloud["counts"]["accepted_by"]
    assert local["counts"]["bytes_up"] == 0 < strict["counts"]["bytes_up"]


def test_local_without_a_target_is_the_drafter_alone(run: Run, address: str) -> None:
    arguments = [word for word in TINY if word not in ("--target", "tiny")]
    done = run(
        "chat", *arguments, "--json", "--verifier", address, "--drafter", "tiny", "--mode", "local", stdin="hello\n"
    )
    [answer] = answers(done.stdout)
    assert answer["counts"]["provisional"] == len(answer["token_ids"]) > 0
    alone = ("chat", *arguments, "--verifier", address, "--drafter", "tiny", "--mode", "local")
    kept, gone = run(*alone, stdin="hello\n"), run(*alone, "--no-journal", stdin="hello\n")
    assert kept.stdout.strip() == answer["text"].strip()
    assert "the target is not here" in kept.stderr
    assert "cut on purpose" not in kept.stderr
    whose = f"All {len(answer['token_ids'])} tokens are the drafter's own"
    assert kept.stderr.endswith(f"{whose}; outrider sync has them verified\n")
    assert gone.stderr.endswith(f"{whose}\n")  # what is not kept is nothing to sync


@pytest.mark.parametrize("mode", ["strict", "cloud"])
def test_without_the_link_there_is_an_error_where_nothing_else_may_answer(run: Run, address: str, mode: str) -> None:
    done = run("chat", *TINY, "--verifier", address, "--mode", mode, stdin="/offline\nhello\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cut on purpose" in done.stderr
    assert done.stderr.rstrip().endswith("[link_lost]")


def test_it_is_saved_as_text_and_as_json(run: Run, tmp_path: Path) -> None:
    text, data = tmp_path / "it.md", tmp_path / "it.json"
    done = run("chat", "trip", *TINY, "--json", stdin=f"hello\n/save {text}\n/save '{data}'\n/save {text}\n")
    assert done.returncode == 2  # it is there already
    [answer] = answers(done.stdout)
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": answer["text"]}]
    assert json.loads(data.read_bytes()) == {"conversation": "trip", "messages": messages}
    assert text.read_text().startswith("# trip\n\n**user**\n\nhello\n\n**assistant**\n")
    assert text.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        ([], "/nonsense\n", "/help"),
        ([], "/mode nonsense\n", "hybrid, strict, cloud, local"),
        ([], "/mode hybrid\n", "--verifier"),
        ([], "/offline\n", "no link"),
        ([], "/sync\n", "no verifier"),
        ([], "/save\n", "FILE"),
        ([], "/save '\n", "quotation"),
        ([], "/quit now\n", "nothing after it"),
        (["--mode", "cloud"], "", "--verifier"),
        (["--continue"], "", "no conversation"),
        (["--continue", "--no-journal"], "", "--no-journal"),
        (["--temperature", "-1"], "", "temperature"),
        (["--verifier", "ftp://x"], "", "address"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(run: Run, arguments: list[str], stdin: str, words: str) -> None:
    done = run("chat", *TINY, *arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.rstrip().splitlines()[-1]
    assert last.startswith("outrider: ")
    assert words in last
    assert "Traceback" not in done.stderr


def test_names_are_taken_once_and_known_later(run: Run) -> None:
    run("chat", "trip", *TINY, stdin="hello\n")
    again = run("chat", "trip", *TINY, stdin="hello\n")
    assert again.returncode == 2
    assert "--continue trip" in again.stderr
    for name in ("", "a\nb", "\udcff"):
        refused = run("chat", name, *TINY, stdin="hello\n")
        assert refused.returncode == 2
        assert "cannot be called" in refused.stderr
    unknown = run("chat", "--continue", "trap", *TINY)
    assert unknown.returncode == 2
    assert "the latest: trip" in unknown.stderr


def test_messages_of_several_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    said = 'one\ntwo \\\nlines\n"""\nthree\n\nmore\n"""\n"""on one"""\n"""\nunclosed\n'
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    reader = MessageReader([], [])
    assert [reader.read("") for _ in range(5)] == ["one", "two \nlines", "three\n\nmore", "on one", "unclosed"]
    with pytest.raises(EOFError):
        reader.read("")


def test_words_are_told_apart_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Screen(has_colors=True)
    screen.take(Piece("The ", Token(5, 1, "tiny")))
    screen.take(Piece("sky ", Token(6, 2, None)))
    screen.take(Piece("is ", Token(7, 3, "tiny", is_verified=False)))
    screen.take(Piece("red", Token(8, 4, "tiny", is_verified=False)))
    screen.take(Piece("", Token(7, 3, "tiny")))
    screen.take(Retracted(8, len("The sky is ")))
    screen.take(Piece("blue", Token(8, 5, None)))
    written = capsys.readouterr().out
    before = f"{DRAFTED}The {NORMAL}sky {DIM}is {NORMAL}{DIM}red{NORMAL}"
    assert written == f"{before}\nThe sky is {STRUCK}red{NORMAL}blue"
    assert screen.text == "The sky is blue"


def test_an_answer_steers_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = "a\x1b]0;title\x07b\x9b2J\r\n\tc\x7f"
    for is_terminal, written in ((True, "a]0;titleb2J\n\tc"), (False, said)):
        monkeypatch.setattr(sys.stdout, "isatty", lambda is_terminal=is_terminal: is_terminal)
        Screen().take(Piece(said, Token(5, 1, None)))
        assert capsys.readouterr().out == written


def test_control_c_stops_the_answer_and_not_the_chat() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        process = Forked(
            ["outrider", "chat", "stop", *TINY, "--verifier", address, "--mode", "strict"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.stdin.write("hello\n")
        process.stdin.flush()
        connection, _ = listener.accept()  # it is under way, and will hear nothing
        with connection:
            process.send_signal(signal.SIGINT)
            assert "stopped" in process.stderr.readline()
        _, err = process.communicate("/stats\n", timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert "nothing was answered yet" in err
    assert "Traceback" not in err
    with Journal() as journal:
        assert journal.generations("stop") == []  # nothing was said, and nobody is to finish it later


@contextmanager
def on_a_terminal(*arguments: str, command: str = "outrider") -> Iterator[tuple[int, Callable[[str], str]]]:
    """The chat in a terminal of its own: where to type, and how to wait for words. It ends well."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    process = Forked(
        [command, "chat", "seen", *TINY, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield master, hearing(master)
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_on_a_terminal_there_is_a_prompt_and_a_look_and_no_end_for_a_mistake(address: str) -> None:
    with on_a_terminal("--drafter", "tiny", "--verifier", address) as (terminal, hear):
        hear("conversation seen")
        hear("hybrid>")
        os.write(terminal, b"/nonsense\r")
        hear("invalid_parameter")
        os.write(terminal, b"/offline\r")
        hear("hybrid, link cut>")
        os.write(terminal, b"hello\x1b\rthere\r")  # Alt-Enter between them
        assert DIM in hear("the drafter's own")
        hear("link cut>")
        os.write(terminal, b"\x03")
        hear("ends the chat")
        hear("link cut>")
        os.write(terminal, b"\x04")
    with Journal() as journal:
        [generation] = journal.generations("seen")
        assert generation.asked.messages == [{"role": "user", "content": "hello\nthere"}]


def test_without_the_editor_there_is_the_system_s_line() -> None:
    with on_a_terminal("--no-journal", command="tests.edge_runtime.cli.without_editor") as (terminal, hear):
        hear("local> ")
        os.write(terminal, b"hello\n")
        hear("drafts accepted")
        hear("local> ")
        os.write(terminal, b"\x04")


def hearing(terminal: int) -> Callable[[str], str]:
    """Waits until `words` are on the terminal, after those of the last time; gives all that ever was."""
    heard, seen = "", 0

    def hear(words: str) -> str:
        nonlocal heard, seen
        while (found := re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", heard).find(words, seen)) < 0:
            ready, _, _ = select.select([terminal], [], [], LIMIT_S)
            assert ready, f"no {words!r} in {heard!r}"
            heard += os.read(terminal, 4096).decode("utf-8", "replace")
        seen = found + len(words)
        return heard

    return hear
