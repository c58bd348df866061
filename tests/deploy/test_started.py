"""The verifier as each file in deploy/ starts it, with a tiny model: its probes answer, and it leaves at SIGTERM.

Real processes, real TLS, real tokens. Only what the machine decides is changed: model, port, paths.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloud_verifier import health
from cloud_verifier.tokens import TokenFile
from outrider import catalog
from outrider.manifest import Source, file_sha256
from tests.deploy.files import arguments, container, settings
from tests.edge_runtime.cli.test_generate import LIMIT_S
from tests.export.models import write_gguf
from tests.lazy import trustme
from tests.warm import Forked


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what an operator brings: a store, tokens, a certificate (for another name than this machine's)."""
    folder = tmp_path_factory.mktemp("machine")
    file = write_gguf(folder / "store" / "tiny" / "tiny.gguf")
    source = Source("random", file_sha256(file))
    catalog.install_gguf(file, folder / "store" / "tiny", name="tiny", licence="none", source=source)
    _, secret = TokenFile(folder / "tokens.json").add("probe")
    (folder / "token").write_text(secret)
    served = trustme.CA().issue_cert("verifier.example")
    served.cert_chain_pems[0].write_to_path(str(folder / "tls.crt"))
    served.private_key_pem.write_to_path(str(folder / "tls.key"))
    return folder


def on_this_machine(given: list[str], machine: Path) -> list[str]:
    """The same options, with this machine's model, port and paths."""
    model = settings(given)["model"]
    text = "\0".join(given).replace(model, "tiny", 1)
    text = re.sub(r"(--port[=\0])\d+", r"\g<1>0", text)
    text = re.sub(r"/run/secrets/(?:\w+/)?([\w.]+)", rf"{machine}/\1", text)
    text = text.replace("cuda", "cpu")
    return [*text.split("\0"), "--context", "256"]


@contextmanager
def started(given: list[str], machine: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and where it says that it listens."""
    environment = os.environ | {"OUTRIDER_HOME": str(machine / "store")}
    process = Forked(["outrider", *given], env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    told = []
    try:
        for line in process.stderr:
            told.append(line)
            if found := re.search(r"(https?)://\S+:(\d+)", line):
                yield process, f"{found[1]}://127.0.0.1:{found[2]}"
                break
        else:
            raise AssertionError("".join(told))
    finally:
        process.kill()
        process.wait(LIMIT_S)
        process.stderr.close()


@pytest.mark.parametrize("name", [name for name in arguments() if "cuda" not in name])
def test_it_starts_answers_and_leaves(name: str, machine: Path) -> None:
    with_tokens = [] if "--tokens" in "".join(arguments()[name]) else ["--tokens", str(machine / "tokens.json")]
    given = [*on_this_machine(arguments()[name], machine), *with_tokens]
    token = (machine / "token").read_text()
    with started(given, machine) as (process, url):
        assert url.startswith("https") == ("--tls-cert" in "".join(given))
        assert health.ask(f"{url}/healthz") == 200
        assert health.ask(f"{url}/readyz") == 401
        assert health.ask(f"{url}/readyz", token) == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0


def test_the_pod_s_own_probes(machine: Path) -> None:
    """Each as the manifest has it, but for the port."""
    given = container()
    [variable] = given["env"]
    with started(on_this_machine(given["args"], machine), machine) as (_, url):
        for probe in ("startupProbe", "livenessProbe"):
            asked = given[probe]["httpGet"]
            assert url.startswith(asked["scheme"].lower())
            assert health.ask(url + asked["path"]) == 200
        python, *words = given["readinessProbe"]["exec"]["command"]
        assert python == "python"
        words[-1] = re.sub(r"https://127\.0\.0\.1:\d+", url, words[-1])

        def ready(token: str) -> subprocess.CompletedProcess[str]:
            environment = os.environ | {variable["name"]: token}
            limit_s = 10 * given["readinessProbe"]["timeoutSeconds"]
            return subprocess.run(
                [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=limit_s
            )

        assert ready((machine / "token").read_text()).returncode == 0
        refused = ready("another")
        assert (refused.returncode, "status 401" in refused.stderr) == (1, True)
        assert "another" not in refused.stderr


def test_options_for_a_gpu_are_read_as_meant() -> None:
    assert settings(arguments()["Containerfile.cuda"])["provider"] == "cuda"


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert health.main([f"http://127.0.0.1:{port}/healthz"]) == 1
    assert "refused" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["", "ftp://127.0.0.1/healthz", "127.0.0.1:8700", "http://"])
def test_no_address(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main([url]) == 1
    assert "no address" in capsys.readouterr().err


def test_elsewhere_a_certificate_is_checked(monkeypatch: pytest.MonkeyPatch, machine: Path) -> None:
    """The same server, under a name that is not loopback's."""
    connect = socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda address, *rest, **more: connect(("127.0.0.1", address[1]), *rest, **more)
    )
    with started(on_this_machine(container()["args"], machine), machine) as (_, url):
        assert health.ask(f"{url}/healthz") == 200
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            health.ask(url.replace("127.0.0.1", "verifier.example") + "/healthz")
