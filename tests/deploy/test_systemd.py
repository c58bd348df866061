"""The systemd unit: its words against the command's and, where systemd is installed, against systemd's judgement."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, settings, unit

UNIT = DEPLOY / "outrider-verifier.service"
HARDENED = {"DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "CapabilityBoundingSet": ""}
EXPOSURE = "20"  # tenths: systemd calls below 3.0 "OK", and an unhardened unit has 9.6
has_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The unit with a program that is installed on this machine."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/outrider/bin/outrider", sys.executable))
    return path


def test_a_stop_outlasts_the_drain() -> None:
    given = settings(shlex.split(unit()["ExecStart"])[1:])
    assert float(unit()["TimeoutStopSec"]) >= given["grace"] + 5


def test_it_is_hardened_and_started_again() -> None:
    assert HARDENED.items() <= dict(unit()).items()
    assert unit()["Restart"] == "on-failure"
    assert unit()["RestartPreventExitStatus"] == "2"
    assert unit()["MemoryMax"]


def test_the_store_lies_in_its_own_state() -> None:
    home = re.search(r"OUTRIDER_HOME=(\S+)", unit()["Environment"])
    assert home
    assert Path(home[1]).parent == Path("/var/lib") / unit()["StateDirectory"]  # the tokens' file lies beside the store


@has_systemd
def test_systemd_understands_it(here: Path) -> None:
    done = analyze("verify", str(here))
    assert (done.returncode, done.stderr) == (0, "")
    here.write_text(here.read_text().replace("ProtectSystem=strict", "ProtectSystem=stricter"))
    assert "Failed to parse" in analyze("verify", str(here)).stderr


@has_systemd
def test_systemd_finds_it_little_exposed(here: Path) -> None:
    judge = ("security", "--offline=true", f"--threshold={EXPOSURE}")
    assert analyze(*judge, str(here)).returncode == 0
    here.write_text("[Service]\nExecStart=/bin/true\n")
    assert analyze(*judge, str(here)).returncode != 0
