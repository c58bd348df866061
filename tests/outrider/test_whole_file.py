import os
from pathlib import Path

import pytest

from outrider.whole_file import write_whole


def test_the_new_file_takes_the_old_one_s_place(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    for data, mode in ((b"one", 0o600), (b"two", 0o644)):
        write_whole(file, data, mode)
        assert file.read_bytes() == data
        assert file.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.toml"
    write_whole(file, b"one")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space"):
            write_whole(file, b"two")
    assert file.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [file]
