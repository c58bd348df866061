"""What pip says and leaves; that it brings a wheel `test_download.py` shows."""

import sys
import threading
import zipfile
from pathlib import Path

import pytest

from outrider.errors import DiskFull, FetchError, MissingExtra, NoNetwork, OutriderError
from outrider.wheels import fetch_wheel, find_wheel, read_member
from tests.outrider.wheel_folder import use_dead_index, use_only, write_wheel


def test_a_wheel_is_found_by_its_name_and_version(tmp_path: Path) -> None:
    assert find_wheel("toy-part1==1.0", tmp_path) is None
    wheel = write_wheel(tmp_path, "toy-part1", "1.0", {"toy_part1/data": b"abc"})
    assert find_wheel("toy-part1==1.0", tmp_path) == wheel
    assert b"".join(read_member(wheel, "toy_part1/data")) == b"abc"
    assert find_wheel("toy-part1==1.1", tmp_path) is None
    assert find_wheel("toy-part10==1.0", tmp_path) is None


def test_a_wheel_that_the_index_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    use_only(tmp_path, monkeypatch)
    with pytest.raises(FetchError, match=r"no wheel of toy==1\.0") as caught:
        list(fetch_wheel("toy==1.0", tmp_path / "partial"))
    assert type(caught.value) is FetchError
    assert capfd.readouterr() == ("", "")


def test_an_index_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    use_dead_index(monkeypatch)
    with pytest.raises(NoNetwork, match="index could not be reached"):
        list(fetch_wheel("toy==1.0", tmp_path / "partial"))
    assert capfd.readouterr() == ("", "")


def fake_interpreter(tmp_path: Path, script: str) -> str:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", DiskFull),
        ("ReadTimeoutError: timed out", NoNetwork),
        ("ERROR: something new", FetchError),
    ],
)
def test_what_pip_says_becomes_one_sentence(
    output: str, kind: type[OutriderError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", fake_interpreter(tmp_path, f"echo '{output}' >&2; exit 1"))
    with pytest.raises(kind) as caught:
        list(fetch_wheel("toy==1.0", tmp_path / "partial"))
    assert type(caught.value) is kind
    assert output not in str(caught.value)


def test_pip_that_succeeds_without_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", fake_interpreter(tmp_path, "exit 0"))
    with pytest.raises(FetchError):
        list(fetch_wheel("toy==1.0", tmp_path / "partial"))


def test_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="ensurepip"):
        list(fetch_wheel("toy==1.0", tmp_path))


def test_giving_up_ends_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, before = tmp_path / "pid", set(threading.enumerate())
    monkeypatch.setattr(sys, "executable", fake_interpreter(tmp_path, f"echo $$ > {marker}; exec sleep 600"))
    fetching = fetch_wheel("toy==1.0", tmp_path / "partial")
    while not marker.exists() or not marker.read_text():
        next(fetching)
    fetching.close()  # what an interrupt does
    assert not Path(f"/proc/{marker.read_text().strip()}").exists()
    assert set(threading.enumerate()) <= before


def test_broken_wheels_are_thrown_away(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, "toy", "1.0", {"toy/data": bytes(range(256)) * 100})
    with pytest.raises(FetchError, match="lacks toy/other"):
        list(read_member(path, "toy/other"))
    assert not path.exists()

    path = write_wheel(tmp_path, "toy", "1.0", {"toy/data": bytes(range(256)) * 100})
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(FetchError, match="broken"):
        list(read_member(path, "toy/data"))
    assert not path.exists()

    path.write_bytes(content[:100])
    assert find_wheel("toy==1.0", tmp_path) is None
    assert not path.exists()


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 99)], ids=["a password", "an unknown compression"])
def test_a_member_that_cannot_be_opened_is_a_broken_wheel(offset: int, value: int, tmp_path: Path) -> None:
    wheel = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("data.bin", b"weights")
    content = bytearray(wheel.read_bytes())
    entry = content.index(b"PK\x01\x02")  # of the directory at the end, which is what readers go by
    content[entry + offset] = value
    content[6 + offset - 8] = value  # and the same field before the data
    wheel.write_bytes(content)
    with pytest.raises(FetchError, match="broken"):
        list(read_member(wheel, "data.bin"))
    assert not wheel.exists()
