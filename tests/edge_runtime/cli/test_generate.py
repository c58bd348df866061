"""`outrider generate` and `outrider verifier` as a person meets them: a tiny real model, real processes."""

import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from cloud_verifier.signing import load_signer
from edge_runtime.cli import main
from edge_runtime.links import WebSocketLink
from outrider import catalog
from outrider.choice import SamplingParams
from outrider.manifest import Source, file_sha256
from outrider.wire import Open, Opened, Params, pack_ids
from tests.export.models import write_gguf
from tests.warm import Forked

LIMIT_S = 60


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one tiny model, `tiny`, and the same under another vocabulary, `foreign`."""
    home = tmp_path_factory.mktemp("store")
    for name in ("tiny", "foreign"):
        file = write_gguf(home / name / f"{name}.gguf")
        catalog.install_gguf(file, home / name, name=name, licence="none", source=Source("random", file_sha256(file)))
    manifest = home / "foreign" / "manifest.json"
    manifest.write_text(re.sub(r'("tokenizer_fingerprint": ")\w+', r"\1other", manifest.read_text()))
    return home


@pytest.fixture(autouse=True)
def _use_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_HOME", str(home))


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: the same as in one of its own, and faster."""

    def run(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["outrider", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as stopped:
            main()
        return Done(int(stopped.value.code or 0), *capsys.readouterr())

    return run


@contextmanager
def verifier(*arguments: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    process = Forked(["outrider", "verifier", "tiny", "--port", "0", *arguments], stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if found := re.search(r"http://\S+", line):
                yield found[0], process
                break
        else:
            raise AssertionError("the verifier did not start")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def shared(home: Path) -> Iterator[str]:
    """The address of a verifier for all tests that leave it as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_HOME", str(home))
        with verifier("--threads", "1", "--context", "256", "--sessions", "2") as (address, _):
            yield address


def test_the_verifier_signs_with_a_key_of_its_own(home: Path, shared: str) -> None:
    async def opened(address: str) -> Opened:
        link = WebSocketLink(address)
        await link.open()
        await link.send(Open("", "", Params.of(SamplingParams()), 9, 0, b"", pack_ids([1]), wants_signature=True))
        said = await link.receive()
        await link.close()
        assert isinstance(said, Opened)
        return said

    key = asyncio.run(opened(shared)).public_key
    assert key == load_signer(home / "verifier-key.pem").public_key


TINY = ("--target", "tiny", "--threads", "1", "--max-tokens", "24", "--context", "256")


def test_text_goes_out_and_figures_beside_it(run: Run) -> None:
    done = run("generate", "hello", *TINY)
    assert done.returncode == 0
    assert done.stdout.endswith("\n")
    for word in ("tokens/s", "tokens per pass", "drafts accepted", "bytes a token"):
        assert word in done.stderr


def test_one_object_with_json_and_the_same_text_with_and_without_drafts_and_over_a_socket(
    run: Run, shared: str
) -> None:
    def answers(sampling: list[str], *drafters: list[str]) -> list[dict[str, Any]]:
        found = []
        for drafter in drafters:
            done = run("generate", "hello", *TINY, "--json", *sampling, "--drafter", *drafter)
            assert done.returncode == 0, done.stderr
            assert done.stdout.count("\n") == 1
            found.append(json.loads(done.stdout))
        for answer in found:
            assert (answer["text"], answer["token_ids"]) == (found[0]["text"], found[0]["token_ids"])
        return found

    there = ["--verifier", shared]
    plain, drafted, remote = answers([], ["none"], ["tiny"], ["tiny", *there])
    sampling = ["--temperature", "0.8", "--seed", "3"]
    sampled, *_ = answers(sampling, ["none"], ["lookup"], ["foreign"], ["none", *there], ["foreign", *there])
    assert sampled["token_ids"] != plain["token_ids"]
    assert drafted["counts"]["accepted"] > 0
    assert drafted["counts"]["bytes_up"] == 0 < remote["counts"]["bytes_up"]
    assert drafted["times"]["total_ms"] > 0


def test_a_receipt_of_an_answer_is_signed_by_the_service_and_checked(run: Run, shared: str, tmp_path: Path) -> None:
    file = tmp_path / "answer.receipt"
    done = run("generate", "hello", *TINY, "--verifier", shared, "--drafter", "tiny", "--receipt", str(file), "--json")
    assert done.returncode == 0, done.stderr
    checked = run("receipt", "check", str(file), "--json")
    assert checked.returncode == 0, checked.stderr
    receipt = json.loads(checked.stdout)["receipt"]
    answer = json.loads(done.stdout)
    assert receipt["signed"]["token_ids"] == answer["token_ids"]
    assert receipt["counts"]["accepted"] == answer["counts"]["accepted"]
    assert receipt["models"]["drafters"].keys() == answer["counts"]["accepted_by"].keys()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(file.read_bytes().replace(b'"start":', b'"start":1'))
    assert run("receipt", "check", str(file)).returncode == 1


def test_a_receipt_that_nobody_signed_says_so(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "answer.receipt"
    assert run("generate", "hello", *TINY, "--drafter", "none", "--receipt", str(file)).returncode == 0
    checked = run("receipt", "check", str(file))
    assert checked.returncode == 1
    assert "nobody signed" in checked.stderr


def test_a_receipt_has_a_place_before_anything_begins(run: Run, tmp_path: Path) -> None:
    for more in (
        ["--receipt", str(tmp_path / "none" / "r")],
        ["--receipt", str(tmp_path)],
        ["--receipt", "r", "--n", "2"],
    ):
        done = run("generate", "hello", *TINY, *more)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--receipt" in done.stderr


def test_a_foreign_drafter_needs_the_target_s_name_over_a_socket(run: Run, shared: str) -> None:
    done = run("generate", "hello", "--verifier", shared, "--drafter", "foreign")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--target" in done.stderr
    assert done.stderr.rstrip().endswith("[vocabulary_mismatch]")


def test_the_prompt_may_come_from_standard_input_and_go_without_the_template(run: Run) -> None:
    asked = run("generate", "-", *TINY, "--json", "--raw", stdin="hello hello")
    given = run("generate", "hello hello", *TINY, "--json", "--raw")
    assert json.loads(asked.stdout)["token_ids"] == json.loads(given.stdout)["token_ids"]
    chat = run("generate", "hello hello", *TINY, "--json")
    assert json.loads(chat.stdout)["counts"]["prompt"] > json.loads(given.stdout)["counts"]["prompt"]


EVERYTHING = (
    *("--repetition-penalty", "1.2", "--frequency-penalty", "0.3", "--presence-penalty", "0.2"),
    *("--logit-bias", "65=2", "--logit-bias", "66=-100", "--min-tokens", "20", "--temperature", "0.9"),
)


@pytest.fixture
def schema(tmp_path: Path) -> str:
    (tmp_path / "schema.json").write_text(
        '{"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 2, "maxItems": 4}'
    )
    return str(tmp_path / "schema.json")


def test_samplers_options_give_the_same_with_and_without_drafts_and_over_a_socket(
    run: Run, schema: str, shared: str
) -> None:
    for options in (
        EVERYTHING,
        ("--json-schema", schema),
        ("--regex", "(one|two|three){2,6}", *EVERYTHING[:6]),
        ("--stop", "thr", "--stop", "wot", "--regex", "(one|two){2}three"),
    ):
        answers = []
        for more in (("none",), ("tiny", "--verifier", shared)):
            done = run("generate", "hello", *TINY, "--json", *options, "--drafter", *more)
            assert done.returncode == 0, done.stderr
            answer = json.loads(done.stdout)
            answers.append((answer["text"], answer["token_ids"], answer["finish_reason"]))
        assert answers[0] == answers[1]
        text = answers[0][0]
        if "--json-schema" in options:
            assert {1, 2, 3} >= set(json.loads(text))
        elif "--stop" in options:
            assert re.fullmatch("(one|two)one|onetwo|t", text)
            assert answers[0][2] == "stop"
        elif "--regex" in options:
            assert re.fullmatch("(one|two|three){2,6}", text)


def test_log_probabilities_are_told_with_json(run: Run) -> None:
    answer = json.loads(run("generate", "hello", *TINY, "--json", "--logprobs", "2").stdout)
    assert len(answer["logprobs"]) == len(answer["token_ids"])
    for token_id, told in zip(answer["token_ids"], answer["logprobs"], strict=True):
        assert told["top"][0] == [token_id, told["logprob"]]  # greedy: the likeliest
        assert told["top"][1][1] <= told["logprob"] < 0


def test_several_answers_are_those_of_the_seeds_that_follow(run: Run) -> None:
    sampled = (*TINY, "--temperature", "1.5", "--json")
    several = [
        json.loads(line) for line in run("generate", "hello", *sampled, "--seed", "4", "--n", "3").stdout.splitlines()
    ]
    assert [answer["seed"] for answer in several] == [4, 5, 6]
    for answer in several:
        alone = json.loads(run("generate", "hello", *sampled, "--seed", str(answer["seed"])).stdout)
        assert answer["token_ids"] == alone["token_ids"]
    assert len({tuple(answer["token_ids"]) for answer in several}) == 3


SEARCHES = {"beams": ("--beams", "3"), "samples": ("--best-of", "3", "--temperature", "1.5", "--seed", "4")}


@pytest.mark.parametrize("kind", SEARCHES)
def test_searches_find_the_same_here_and_over_a_socket(run: Run, shared: str, kind: str) -> None:
    """At a verifier with room for two."""
    options, answers = SEARCHES[kind], []
    for more in ((), ("--verifier", shared)):
        done = run("generate", "hello", *TINY, "--json", "--drafter", "tiny", "--logprobs", "0", *options, *more)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["counts"]["drafted"] == 0
        answers.append((answer["token_ids"], sum(each["logprob"] for each in answer["logprobs"])))
    assert answers[0][0] == answers[1][0]
    if kind == "samples":
        plain = json.loads(run("generate", "hello", *TINY, "--json", "--logprobs", "0", *options[2:]).stdout)
        total = sum(each["logprob"] for each in plain["logprobs"])
        assert answers[0][1] / len(answers[0][0]) >= total / len(plain["token_ids"])


def test_what_comes_all_at_once_has_no_rate(run: Run) -> None:
    samples = run("generate", "hello", *TINY, *SEARCHES["samples"])
    assert re.search(r"^\d+ tokens, [0-9.]+ bytes a token, all after \d+ ms$", samples.stderr, re.MULTILINE)
    assert json.loads(run("generate", "hello", *TINY, "--max-tokens", "1", "--json").stdout)["tokens_per_s"] is None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["hello", "--target", "tinny"], "unknown_model"),
        (["hello", "--target", "qwen2.5-coder-1.5b-onnx"], "not_here"),
        (["hello", "--target", __file__], "invalid_model"),
        (["hello", "--target", "tiny", "--drafter", "nobody"], "unknown_model"),
        (["hello " * 300, *TINY], "context_exceeded"),
        (["", *TINY], "empty_prompt"),
        ([" \n", *TINY], "empty_prompt"),
        (["hello", *TINY, "--temperature", "-1"], "invalid_parameter"),
        (["hello", *TINY, "--temperature", "nan"], "invalid_parameter"),
        (["hello", *TINY, "--top-p", "0"], "invalid_parameter"),
        (["hello", *TINY, "--top-k", "-3"], "invalid_parameter"),
        (["hello", *TINY, "--min-p", "2"], "invalid_parameter"),
        (["hello", *TINY, "--seed", "-1"], "invalid_parameter"),
        (["hello", *TINY, "--max-tokens", "0"], "invalid_parameter"),
        (["hello", *TINY, "--threads", "-1"], "invalid_parameter"),
        (["hello", "--target", "tiny", "--context", "-5"], "invalid_parameter"),
        (["hello", *TINY, "--repetition-penalty", "0"], "invalid_parameter"),
        (["hello", *TINY, "--frequency-penalty", "3"], "invalid_parameter"),
        (["hello", *TINY, "--presence-penalty", "nan"], "invalid_parameter"),
        (["hello", *TINY, "--min-tokens", "-1"], "invalid_parameter"),
        (["hello", *TINY, "--logit-bias", "5"], "invalid_parameter"),
        (["hello", *TINY, "--logit-bias", "5=1", "--logit-bias", "5=2"], "invalid_parameter"),
        (["hello", *TINY, "--logit-bias", "99999=1"], "invalid_token"),
        (["hello", *TINY, "--stop", ""], "invalid_parameter"),
        (["hello", *TINY, "--n", "0"], "invalid_parameter"),
        (["hello", *TINY, "--logprobs", "21"], "invalid_parameter"),
        (["hello", *TINY, "--logprobs", "2"], "invalid_parameter"),  # for --json alone
        (["hello", *TINY, "--threads", "100000"], "invalid_parameter"),
        (["hello", *TINY, "--beams", "17"], "invalid_parameter"),
        (["hello", *TINY, "--beams", "4", "--temperature", "1"], "invalid_parameter"),
        (["hello", *TINY, "--beams", "4", "--length-penalty", "nan"], "invalid_parameter"),
        (["hello", *TINY, "--best-of", "4"], "invalid_parameter"),
        (["hello", *TINY, "--best-of", "4", "--n", "2", "--temperature", "1"], "invalid_parameter"),
        (["hello", *TINY, "--n", "2", "--seed", str(2**63 - 1)], "invalid_parameter"),
        (["hello", "--target", "nobody", "--regex", "("], "invalid_parameter"),  # told before anything is looked for
        (["hello", *TINY, "--regex", "a", "--json-schema", __file__], "invalid_parameter"),
        (["hello", *TINY, "--grammar", __file__], "invalid_parameter"),
        (["hello", *TINY, "--grammar", "/nowhere/at/all"], "invalid_parameter"),
        (["hello", "--target", "tiny", "--verifier", "ftp://x"], "invalid_parameter"),
    ],
)
def test_a_mistake_is_one_line_with_a_code_and_status_2(run: Run, arguments: list[str], code: str) -> None:
    done = run("generate", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    last = done.stderr.rstrip().splitlines()[-1]
    assert last.startswith("outrider: ")
    assert last.endswith(f"[{code}]")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["hello", "--no-such-option"], ["hello", "--max-tokens", "many"]])
def test_a_wrong_command_line_is_status_2_without_a_traceback(run: Run, arguments: list[str]) -> None:
    done = run("generate", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_no_verifier_there(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    done = run("generate", "hello", *TINY, "--verifier", f"127.0.0.1:{port}", "--drafter", "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.rstrip().endswith("[link_lost]")
    assert "outrider verifier" in done.stderr


LONG = ("--target", "tiny", "--threads", "1", "--max-tokens", "100000", "--context", "256", "--drafter", "none")


def endless(*more: str) -> "subprocess.Popen[str]":
    """A generation over a slow line: its verifier is stopped and continued by hand."""
    return Forked(
        ["outrider", "generate", "hello", *LONG, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_verifier_that_dies_mid_way_ends_it_with_a_reason() -> None:
    with verifier("--threads", "1", "--context", "256") as (address, server):
        server.send_signal(signal.SIGSTOP)
        process = endless("--verifier", address)
        port = urlsplit(address).port
        while not any(each.raddr and each.raddr.port == port for each in psutil.Process(process.pid).net_connections()):
            time.sleep(0.01)  # it does not wait for the verifier yet
        server.kill()
        _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert err.rstrip().endswith("[link_lost]")
    assert "Traceback" not in err


def test_control_c_ends_it_with_a_reason_and_leaves_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = endless("--verifier", f"127.0.0.1:{listener.getsockname()[1]}")
        connection, _ = listener.accept()  # it is under way, and will hear nothing
        with connection:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, err
    assert err.rstrip().endswith("[interrupted]")
    assert "Traceback" not in err


def test_a_closed_pipe_ends_it_with_a_reason() -> None:
    process = Forked(
        ["outrider", "generate", "hello", *TINY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert err.rstrip().endswith("[closed_pipe]")
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@pytest.mark.parametrize("kind", ["full", "unread"])
def test_notes_that_find_no_room_withhold_no_answer(run: Run, kind: str) -> None:
    want = run("generate", "hello", *TINY).stdout
    if kind == "full":
        fd = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, fd = os.pipe()
        os.close(reader)
    with os.fdopen(fd, "wb", 0) as notes:
        with Forked(["outrider", "generate", "hello", *TINY], stdout=subprocess.PIPE, stderr=notes, text=True) as done:
            assert done.communicate(timeout=LIMIT_S)[0] == want
        wrong = Forked(["outrider", "generate", "hello", "--target", "nobody"], stderr=notes)
        assert wrong.wait(LIMIT_S) == 2
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_verifier_stops_when_told(number: signal.Signals) -> None:
    with verifier("--threads", "1", "--context", "256") as (_, server):
        server.send_signal(number)
        err = server.stderr.read()
        assert server.wait(LIMIT_S) == 0
    assert err.rstrip().endswith("stopped")
    assert "Traceback" not in err


def test_the_verifier_answers_rest_calls_and_logs_them() -> None:
    with verifier("--threads", "1", "--context", "256", "--log-format", "json", "--grace", "5") as (address, server):
        [model] = httpx.get(f"{address}/v1/models").json()["models"]
        assert (model["name"], model["engine"]) == ("tiny", "gguf")
        wish = {"tokens": [1, 2, 3], "max_tokens": 5, "stream": False}
        generated = httpx.post(f"{address}/v1/generate", json=wish).json()["tokens"]
        checked = httpx.post(f"{address}/v1/verify", json={"tokens": [1, 2, 3], "drafts": generated[:-1]}).json()
        assert (checked["accepted"], checked["tokens"]) == (4, generated)
        server.send_signal(signal.SIGTERM)
        err = server.stderr.read()
        assert server.wait(LIMIT_S) == 0
    events = [json.loads(line)["event"] for line in err.splitlines() if line.startswith("{")]
    assert events.count("session ended") == 2
    assert events[-1] == "drained"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tiny", "--grace", "-1"], "from 0 to 86400"),
        (["tiny", "--log-format", "xml"], "json or text"),
        (["tiny", "--host", "0.0.0.0"], "not a loopback address"),
        (["tiny", "--port", "70000"], "from 0 to 65535"),
        (["tiny", "--sessions", "0"], "from 1 to 1024"),
        (["tinny"], "unknown_model"),
    ],
)
def test_the_verifier_refuses_what_cannot_be(run: Run, arguments: list[str], words: str) -> None:
    done = run("verifier", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        done = run("verifier", "tiny", "--port", str(held.getsockname()[1]))
    assert done.returncode == 2
    assert "or --port" in done.stderr


@pytest.mark.parametrize("command", ["generate", "chat", "serve", "doctor", "verifier", "profile"])
def test_help_has_an_example(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert re.search(rf"Examples?:\s+outrider {command}", done.stdout)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("generate", "or the verifier's"),
        ("chat", "hybrid with a verifier"),
        ("doctor", "OUTRIDER_TOKEN"),
        ("sync", "OUTRIDER_TOKEN"),
        ("export", "fused where it can"),
    ],
)
def test_help_says_what_holds_where_nothing_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, words: str
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    assert words in run(command, "--help").stdout
