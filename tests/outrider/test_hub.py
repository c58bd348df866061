import hashlib
from pathlib import Path

import pytest

from outrider.errors import FetchError, NoNetwork, UnknownModel, WrongHash
from outrider.hub import RemoteFile, fetch_file, read_repository
from outrider.progress import silent
from tests.outrider.hub_server import Hub

DATA = bytes(range(256)) * 4000
FILE = RemoteFile("w.gguf", len(DATA), hashlib.sha256(DATA).hexdigest())
PATH = "o/r/resolve/main/w.gguf"


def fetch(tmp_path: Path, file: RemoteFile = FILE) -> Path:
    target = tmp_path / "m" / "w.gguf"
    fetch_file("o/r", "main", file, target, tmp_path / "partial", silent, stage="download")
    return target


def test_fetches_and_reports_bytes(hub: Hub, tmp_path: Path) -> None:
    hub.files[PATH] = DATA
    calls: list[tuple[str, int, int]] = []
    target = tmp_path / "w.gguf"
    digest = fetch_file(
        "o/r", "main", FILE, target, tmp_path / "partial", lambda *call: calls.append(call), stage="download"
    )
    assert digest == FILE.sha256
    assert target.read_bytes() == DATA
    assert calls[-1] == ("download", len(DATA), len(DATA))
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


def test_a_cut_connection_is_taken_up_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    hub.files[PATH] = DATA
    hub.cut_after, hub.num_cuts = 400_000, 2
    assert fetch(tmp_path).read_bytes() == DATA
    assert [requested for _, requested in hub.seen] == [None, "bytes=400000-", "bytes=800000-"]


def test_a_later_run_goes_on_from_what_an_earlier_one_got(hub: Hub, tmp_path: Path) -> None:
    hub.files[PATH] = DATA
    hub.cut_after = 1000
    with pytest.raises(NoNetwork, match="run it again"):
        fetch(tmp_path)
    assert not (tmp_path / "m" / "w.gguf").exists()
    assert (tmp_path / "partial" / "w.gguf.part").read_bytes() == DATA[:3000]
    hub.cut_after = None
    assert fetch(tmp_path).read_bytes() == DATA
    assert hub.seen[-1] == (PATH, "bytes=3000-")


def test_a_hub_without_ranges_is_read_from_the_start(hub: Hub, tmp_path: Path) -> None:
    hub.files[PATH] = DATA
    hub.has_ranges = False
    hub.cut_after, hub.num_cuts = 1000, 1
    assert fetch(tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("data", [DATA[:-1] + b"x", DATA[:-1], DATA + b"x", b"<html>log in</html>"])
def test_wrong_content_leaves_nothing(data: bytes, hub: Hub, tmp_path: Path) -> None:
    hub.files[PATH] = data
    with pytest.raises(WrongHash):
        fetch(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_small_files_without_a_hash_are_never_pieced_together(hub: Hub, tmp_path: Path) -> None:
    hub.files[PATH] = DATA
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "w.gguf.part").write_bytes(b"of another revision")
    assert fetch(tmp_path, RemoteFile("w.gguf", len(DATA), None)).read_bytes() == DATA


@pytest.mark.parametrize(("status", "word"), [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "no longer"), (503, "503")])
def test_refusals_are_sentences(status: int, word: str, hub: Hub, tmp_path: Path) -> None:
    hub.status = status
    with pytest.raises(FetchError, match=word) as caught:
        fetch(tmp_path)
    assert type(caught.value) is FetchError


@pytest.mark.usefixtures("no_hub")
def test_no_network(tmp_path: Path) -> None:
    with pytest.raises(NoNetwork, match="connection"):
        fetch(tmp_path)
    with pytest.raises(NoNetwork, match="connection"):
        read_repository("o/r")


def test_reads_a_repository(hub: Hub) -> None:
    large = {"rfilename": "model.safetensors", "size": 9, "lfs": {"sha256": "ab"}}
    small = {"rfilename": "config.json", "size": 3, "lfs": None}
    hub.models["o/r"] = {"sha": "c0ffee", "cardData": {"license": "mit"}, "siblings": [large, small]}
    repository = read_repository("o/r")
    assert (repository.revision, repository.licence) == ("c0ffee", "mit")
    assert repository.files == [RemoteFile("model.safetensors", 9, "ab"), RemoteFile("config.json", 3, None)]


def test_unknown_and_unreadable_repositories(hub: Hub) -> None:
    with pytest.raises(UnknownModel, match="o/r"):
        read_repository("o/r")
    file = {"rfilename": "config.json", "size": 3}
    for siblings, card in (([{}], {}), (["abc"], {}), ([{**file, "lfs": "x"}], {}), ([file], ["mit"])):
        hub.models["o/r"] = {"sha": "c0ffee", "siblings": siblings, "cardData": card}
        with pytest.raises(FetchError, match="unreadable"):
            read_repository("o/r")


def test_an_address_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://[::1")
    with pytest.raises(NoNetwork, match="InvalidURL"):
        read_repository("o/r")
