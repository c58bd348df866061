import errno
import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from outrider.errors import DiskFull, WrongHash
from outrider.part_file import PartFile, disk_errors, require_space

DATA = bytes(range(256)) * 8
SHA256 = hashlib.sha256(DATA).hexdigest()


def open_part(path: Path, sha256: str | None = SHA256) -> PartFile:
    return PartFile(path, num_bytes=len(DATA), sha256=sha256)


def test_an_interrupted_file_is_taken_up(tmp_path: Path) -> None:
    path, target = tmp_path / "m.part", tmp_path / "m"
    with open_part(path) as part:
        part.write(DATA[:1000])
    assert not target.exists()
    with open_part(path) as part:
        assert part.size == 1000
        part.write(DATA[1000:])
        assert part.finish(target) == SHA256
    assert target.read_bytes() == DATA
    assert not path.exists()


def test_restart_forgets(tmp_path: Path) -> None:
    with open_part(tmp_path / "m.part") as part:
        part.write(b"wrong")
        part.restart()
        part.write(DATA)
        part.finish(tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == DATA


@pytest.mark.parametrize("data", [DATA[:-1], bytes(len(DATA)), DATA + b"x"])
def test_wrong_bytes_leave_no_file(data: bytes, tmp_path: Path) -> None:
    def receive() -> None:
        with open_part(tmp_path / "m.part") as part:
            part.write(data)
            part.finish(tmp_path / "m")

    with pytest.raises(WrongHash, match="run it again"):
        receive()
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_that_is_too_long_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "m.part").write_bytes(DATA + b"x")
    with open_part(tmp_path / "m.part") as part:
        assert part.size == 0


def test_without_a_published_hash_the_size_is_checked(tmp_path: Path) -> None:
    with open_part(tmp_path / "m.part", sha256=None) as part:
        part.write(DATA)
        assert part.finish(tmp_path / "m") == SHA256


@pytest.mark.parametrize(
    ("number", "word"), [(errno.ENOSPC, "full"), (errno.EDQUOT, "full"), (errno.EACCES, "written")]
)
def test_disk_errors_become_a_sentence(number: int, word: str, tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match=word), disk_errors(tmp_path / "m"):
        raise OSError(number, "reason")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), disk_errors(tmp_path / "m"):
        raise IsADirectoryError


def test_a_device_without_space(tmp_path: Path) -> None:
    (tmp_path / "m.part").symlink_to("/dev/full")
    part = PartFile.__new__(PartFile)
    part.path, part.num_bytes, part.expected, part.size = tmp_path / "m.part", len(DATA), SHA256, 0
    part._digest = hashlib.sha256()
    with open("/dev/full", "wb", buffering=0) as part._file, pytest.raises(DiskFull, match="OUTRIDER_HOME"):  # type: ignore[assignment]
        part.write(DATA)
    assert not (tmp_path / "m").exists()


def test_space_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    require_space(tmp_path / "new", 10_000_000, "m")
    with pytest.raises(DiskFull, match=r"m needs 20 MB more and .* has 10 MB free"):
        require_space(tmp_path / "new", 20_000_000, "m")
