"""`outrider verifier`, its tokens and its TLS, as an operator and a device meet them: real processes, a tiny model."""

import io
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from edge_runtime.cli import main
from edge_runtime.cli.access import TOKEN_VARIABLE
from edge_runtime.cli.listening import listen
from edge_runtime.links import WebSocketLink
from outrider import catalog
from outrider.errors import InvalidParameter
from outrider.manifest import Source, file_sha256
from tests.edge_runtime.cli.test_generate import LIMIT_S, TINY, Done, Run
from tests.edge_runtime.test_session import GREEDY, collect, request_of
from tests.export.models import write_gguf
from tests.lazy import trustme
from tests.warm import Forked

ANY = ("--host", "0.0.0.0", "--port", "0")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("operator") / "store"
    file = write_gguf(home / "tiny" / "tiny.gguf")
    catalog.install_gguf(file, home / "tiny", name="tiny", licence="none", source=Source("random", file_sha256(file)))
    return home


@pytest.fixture(autouse=True)
def _use_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_HOME", str(home))
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["outrider", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        with pytest.raises(SystemExit) as stopped:
            main()
        return Done(int(stopped.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pems")
    authority = trustme.CA()
    served = authority.issue_cert("127.0.0.1")
    blobs = {
        "ca": authority.cert_pem,
        "cert": served.cert_chain_pems[0],
        "key": served.private_key_pem,
        "client": authority.issue_cert("device").private_key_and_cert_chain_pem,
    }
    for name, blob in blobs.items():
        blob.write_to_path(str(folder / name))
    return {name: str(folder / name) for name in blobs}


@contextmanager
def verifier(*arguments: str) -> Iterator[str]:
    process = Forked(
        ["outrider", "verifier", "tiny", "--threads", "1", "--context", "256", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    told = []
    try:
        for line in process.stderr:
            told.append(line)
            if found := re.search(r"https?://\S+", line):
                yield found[0]
                break
        else:
            raise AssertionError("".join(told))
    finally:
        process.kill()
        process.wait(LIMIT_S)
        process.stderr.close()


@pytest.mark.parametrize(("options", "makes_any"), [((), True), (("--lookup-tokens", "0"), False)])
def test_the_verifier_s_own_drafts_are_the_operator_s_to_switch_off(options: tuple[str, ...], makes_any: bool) -> None:
    request = request_of(prompt_ids=[1, 2, 3] * 4, params=GREEDY, vocabulary="", max_tokens=120, self_drafts=True)
    with verifier("--port", "0", *options) as url:
        tokens, _ = collect(WebSocketLink(url), None, request)
        metrics = httpx.get(f"{url}/metrics").text
    assert len(tokens) > 20
    assert (re.search(r"^outrider_own_draft_tokens_total 0\.0$", metrics, re.MULTILINE) is None) == makes_any


def test_tokens_are_added_listed_and_revoked(run: Run, tmp_path: Path) -> None:
    file = ("--tokens", str(tmp_path / "tokens.json"))
    assert run("verifier", "token", "list", *file).stdout == ""
    added = run("verifier", "token", "add", "laptop", *file)
    assert added.returncode == 0
    secret = added.stdout.strip()
    assert re.fullmatch(r"[\w-]{43}", secret)
    assert secret not in added.stderr
    assert secret not in (tmp_path / "tokens.json").read_text()
    assert run("verifier", "token", "add", "phone", *file).stdout.strip() != secret
    listed = run("verifier", "token", "list", *file)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["laptop", "phone"]
    assert secret not in listed.stdout
    assert run("verifier", "token", "revoke", "laptop", *file).returncode == 0
    rows = json.loads(run("verifier", "token", "list", "--json", *file).stdout)["tokens"]
    assert [row["name"] for row in rows] == ["phone"]
    assert rows[0]["credential"] in listed.stdout


def test_tokens_lie_beside_the_models_unless_told(run: Run, home: Path) -> None:
    assert run("verifier", "token", "add", "laptop").returncode == 0
    assert home.with_name("store-tokens.json").exists()
    assert run("verifier", "token", "revoke", "laptop").returncode == 0
    home.with_name("store-tokens.json").unlink()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "a b"], "no name for a token"),
        (["revoke", "nobody"], "no token"),
        (["add"], "Missing argument"),
        (["nonsense"], "No such command"),
    ],
)
def test_mistakes_with_tokens(run: Run, arguments: list[str], words: str, tmp_path: Path) -> None:
    more = ["--tokens", str(tmp_path / "tokens.json")] if len(arguments) == 2 else []
    done = run("verifier", "token", *arguments, *more)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["add", "list", "revoke"])
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    done = run("verifier", "token", command, "--help")
    assert done.returncode == 0
    assert f"outrider verifier token {command}" in done.stdout
    assert "verifier token" in run("--help").stdout


@pytest.mark.parametrize("has_tokens", [False, True])
@pytest.mark.parametrize("has_tls", [False, True])
def test_a_wide_bind_wants_tokens_and_tls_or_a_word(
    run: Run, tmp_path: Path, pems: dict[str, str], has_tokens: bool, has_tls: bool
) -> None:
    """Whatever is let through ends at the model that is not there, before a socket listens for long."""
    arguments = ["verifier", "nobody", *ANY]
    if has_tokens:
        file = ("--tokens", str(tmp_path / "tokens.json"))
        run("verifier", "token", "add", "laptop", *file)
        arguments += file
    if has_tls:
        arguments += ["--tls-cert", pems["cert"], "--tls-key", pems["key"]]
    done = run(*arguments)
    assert done.returncode == 2
    if has_tokens and has_tls:
        assert done.stderr.rstrip().endswith("[unknown_model]")
    else:
        assert "0.0.0.0 is not a loopback address" in done.stderr
        assert ("no tokens" in done.stderr) is not has_tokens
        assert "TLS;" in done.stderr or has_tls
        assert "outrider verifier token add" in done.stderr
        assert run(*arguments, "--allow-insecure").stderr.rstrip().endswith("[unknown_model]")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tls-cert", "cert"], "--tls-key"),
        (["--tls-key", "key"], "--tls-cert"),
        (["--client-ca", "ca"], "--tls-cert"),
        (["--tls-cert", "cert", "--tls-key", "ca"], "TLS files"),
        (["--tls-cert", "nowhere", "--tls-key", "key"], "TLS files"),
        (["--tokens", "nowhere"], "token add"),
        (["--tokens", "key"], "no file of tokens"),
    ],
)
def test_files_that_do_not_go_together(run: Run, pems: dict[str, str], options: list[str], words: str) -> None:
    done = run("verifier", "tiny", *(pems.get(option, option) for option in options))
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["ä..b", "ä" * 70, "a..b"])
def test_what_is_no_host_s_name_is_told(host: str) -> None:
    with pytest.raises(InvalidParameter, match="cannot be had"):
        listen(host, 0)


def listening(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(LIMIT_S)
        return probe.connect_ex((address, port)) == 0


def test_by_default_it_listens_on_loopback_only() -> None:
    with verifier("--port", "0") as url:
        port = int(url.rsplit(":", 1)[1])
        assert url.startswith("http://127.0.0.1:")
        assert listening("127.0.0.1", port)
        others = ["127.0.0.2"] + [info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
        assert not any(listening(other, port) for other in others if other != "127.0.0.1")


def test_a_device_with_its_token_over_mutual_tls(
    run: Run, tmp_path: Path, pems: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tokens.json"
    secret = run("verifier", "token", "add", "laptop", "--tokens", str(file)).stdout
    kept = tmp_path / "laptop.token"
    kept.write_text(secret)
    plain = run("generate", "hello", *TINY, "--drafter", "none", "--json")
    tls = ("--tls-cert", pems["cert"], "--tls-key", pems["key"], "--client-ca", pems["ca"])
    with verifier(*ANY, "--tokens", str(file), *tls) as url:
        assert url.startswith("https://0.0.0.0:")
        ask = ["generate", "hello", *TINY, "--drafter", "none", "--json"]
        ask += ["--verifier", url.replace("0.0.0.0", "127.0.0.1"), "--ca-file", pems["ca"]]
        shown = ["--client-cert", pems["client"]]
        done = run(*ask, *shown, "--token-file", str(kept))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["token_ids"] == json.loads(plain.stdout)["token_ids"]
        without = run(*ask, *shown)
        assert without.returncode == 1
        assert without.stderr.rstrip().endswith("[unauthorized]")
        assert run(*ask, "--token-file", str(kept)).stderr.rstrip().endswith("[link_lost]")
        monkeypatch.setenv(TOKEN_VARIABLE, secret.strip())
        assert run(*ask, *shown).returncode == 0


@pytest.mark.parametrize("command", [("generate", "hello"), ("serve",), ("chat",), ("tune",), ("doctor", "--quick")])
@pytest.mark.parametrize("option", ["--token-file", "--ca-file", "--client-cert"])
def test_what_is_for_a_verifier_wants_one(run: Run, command: tuple[str, ...], option: str) -> None:
    done = run(*command, option, "any.pem")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"outrider: {option} is for a verifier; give --verifier too [invalid_parameter]\n"


def test_strictness_wants_a_verifier(run: Run) -> None:
    done = run("generate", "hello", *TINY, "--strict")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--strict is for a verifier; give --verifier too" in done.stderr


@pytest.mark.parametrize("text", ["", "two words", "é", "a\nb"])
def test_a_token_file_that_holds_no_token(run: Run, tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    done = run("generate", "hello", *TINY, "--verifier", "http://127.0.0.1:1", "--token-file", str(file))
    assert done.returncode == 2
    assert "token" in done.stderr
    assert text not in done.stderr or not text


def test_a_token_goes_to_no_other_machine_in_clear_without_a_word(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "x" * 43)
    for address in ("http://verifier.invalid:8700", "ws://192.0.2.1", "verifier.invalid:8700"):
        done = run("generate", "hello", "--target", "nobody", "--verifier", address)
        assert done.returncode == 2
        assert "in clear" in done.stderr
        assert "x" * 43 not in done.stderr
        told = run("generate", "hello", "--target", "nobody", "--verifier", address, "--allow-insecure")
        assert told.stderr.rstrip().endswith("[unknown_model]")
    for address in ("https://verifier.invalid", "http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        done = run("generate", "hello", "--target", "nobody", "--verifier", address)
        assert done.stderr.rstrip().endswith("[unknown_model]")


@pytest.mark.parametrize(
    ("drafter", "code"),
    [("nobody", "unknown_model"), ("tiny", "invalid_parameter"), ("smollm2-135m-instruct", "not_here")],
)
def test_drafters_that_no_browser_runs(run: Run, drafter: str, code: str) -> None:
    done = run("verifier", "tiny", "--phone", drafter, "--port", "0")
    assert done.returncode != 0
    assert f"[{code}]" in done.stderr
