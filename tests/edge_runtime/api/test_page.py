"""The page's files and the switch of the link: who may have them. What the page does is tested in a browser."""

import asyncio
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud_verifier.server import create_server
from cloud_verifier.target import open_verifier
from edge_runtime.answer import Piece
from edge_runtime.api import ApiKey, ApiSettings
from edge_runtime.api.site import FOLDER, PAGE
from edge_runtime.runtime import Runtime
from outrider import catalog
from tests.drafting import EagerPace
from tests.edge_runtime.api.tiny import HELLO, SETTINGS, endpoint
from tests.serving import UNHURRIED, running

KEY = "a-key-of-sixteen-letters"
FOREIGN = [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}]
WATCH = {"x_outrider": {"watch": True, "provisional": True}}


@pytest.fixture(scope="module")
def behind(home: Path) -> Iterator[str]:
    """The address of a device whose verifier is elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_HOME", str(home))
        target = open_verifier(catalog.find("tiny"), SETTINGS)
        with running(create_server(target.loop, UNHURRIED)) as address:
            runtime = Runtime.remote(f"http://{address}", "tiny", "tiny", SETTINGS)
            with runtime, endpoint(runtime, is_remote=True) as url:
                yield url.removesuffix("/v1")
        target.close()


def test_every_file_is_there_and_lets_nothing_in_from_elsewhere(url: str) -> None:
    assert {f"/{file.name}" for file in FOLDER.iterdir()} == {*PAGE, "/index.html"} - {"/"}
    for path in PAGE:
        answer = httpx.get(url.removesuffix("/v1") + path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "innerHTML" not in answer.text
    index = httpx.get(url.removesuffix("/v1")).text
    assert " on" + "click" not in index
    assert "<style" not in index
    assert index.count("<script") == index.count('<script type="module" src=') == 1


@pytest.mark.slow
def test_the_wheel_has_the_page(tmp_path: Path) -> None:
    root = FOLDER.parent.parent.parent
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, root], check=True)
    [wheel] = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {f"edge_runtime/api/page/{file.name}" for file in FOLDER.iterdir()} <= held


def test_our_own_page_may_ask(url: str) -> None:
    own = {"Origin": url.removesuffix("/v1")}
    assert httpx.get(f"{url}/models", headers=own).status_code == 200
    other_port = {"Origin": "http://127.0.0.1:1"}
    assert httpx.get(f"{url}/models", headers=other_port).status_code == 403
    assert httpx.get(f"{url}/models", headers={"Origin": own["Origin"].replace("http:", "https:")}).status_code == 403


def test_a_public_name_is_no_way_for_pages_of_others(pair: Runtime) -> None:
    """Whoever resolves a name of theirs to this machine is not let in as its own page."""
    with endpoint(pair, settings=ApiSettings(is_public=True)) as url:
        rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
        assert httpx.get(f"{url}/models", headers=rebound).status_code == 403


def test_with_a_key_the_page_is_open_and_nothing_else(pair: Runtime) -> None:
    with endpoint(pair, settings=ApiSettings(tokens=ApiKey(KEY))) as url:
        base = url.removesuffix("/v1")
        assert httpx.get(base).status_code == 200
        assert httpx.get(f"{base}/link").status_code == 401
        assert httpx.post(f"{base}/link", json={"is_cut": True}).status_code == 401
        assert httpx.get(f"{url}/models").status_code == 401
        shown = {"Authorization": f"Bearer {KEY}"}
        assert httpx.get(f"{base}/link", headers=shown).json() == {"exists": False, "is_cut": False}
        foreign = {**shown, "Origin": "http://evil.example"}
        assert httpx.post(f"{base}/link", json={"is_cut": True}, headers=foreign).status_code == 403


def test_there_is_no_link_to_cut_where_the_target_is_here(url: str) -> None:
    link = url.replace("/v1", "/link")
    assert httpx.get(link).json() == {"exists": False, "is_cut": False}
    assert httpx.post(link, json={"is_cut": True}).status_code == 400


@pytest.mark.parametrize("headers", FOREIGN)
def test_others_do_not_switch_the_link(behind: str, headers: dict[str, str]) -> None:
    assert httpx.post(f"{behind}/link", json={"is_cut": True}, headers=headers).status_code == 403
    assert httpx.get(f"{behind}/link").json() == {"exists": True, "is_cut": False}


@pytest.mark.parametrize("body", ["{}", '{"is_cut": 1}', '{"is_cut": true, "more": 1}', "[", ""])
def test_what_is_no_wish_for_the_link_is_refused(behind: str, body: str) -> None:
    answer = httpx.post(f"{behind}/link", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def asked(url: str, **more: Any) -> list[dict[str, Any]]:
    """The notes of a stream's chunks, with their text."""
    body = {"model": "auto", "messages": HELLO, "temperature": 0, "max_tokens": 20, "stream": True, **more}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    chunks = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
    return [
        {**chunk.get("x_outrider", {}), "text": choice["delta"].get("content") or ""}
        for chunk in chunks
        for choice in chunk["choices"]
    ]


def test_cut_is_as_if_the_network_were_gone_and_restored_is_as_before(behind: str) -> None:
    for is_cut, state in ((True, "provisional"), (False, "verified")):
        told = httpx.post(f"{behind}/link", json={"is_cut": is_cut}, headers={"Origin": behind})
        assert told.json() == {"exists": True, "is_cut": is_cut}
        assert {note["state"] for note in asked(behind) if note["text"]} == {state}


def test_who_watches_hears_who_guessed_each_token_and_where_the_list_stands(
    url: str, pair: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "_pace", EagerPace())

    async def main() -> list[str | None]:
        events = pair.generate(HELLO, max_tokens=20)
        return [event.token.drafted_by async for event in events if isinstance(event, Piece) and event.token]

    notes = asked(url.removesuffix("/v1"), **WATCH)
    authors = [author for note in notes for author in note.get("by", [])]
    assert authors
    assert set(authors) <= {"tiny", None}
    assert "tiny" in authors
    assert len(authors) <= len(asyncio.run(main()))
    steps = [note for note in notes if "frontier" in note]
    assert [step["frontier"] for step in steps] == sorted(step["frontier"] for step in steps)
    assert max(step["ahead"] for step in steps) > 0
    figures = notes[-1]["figures"]
    assert figures["accepted"] == sum(author is not None for author in authors)
    assert figures["rtt_ms"] is None  # target and drafter share a process


def test_a_round_trip_is_measured(behind: str) -> None:
    assert asked(behind, **WATCH)[-1]["figures"]["rtt_ms"] > 0


def test_who_does_not_watch_hears_none_of_it(url: str) -> None:
    for note in asked(url.removesuffix("/v1")):
        assert not {"by", "frontier", "ahead", "figures"} & note.keys()
