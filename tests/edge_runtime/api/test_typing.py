"""A recorded typing session against the endpoint: what each key costs, and that memory changes no answer."""

import contextlib
import functools
import json
import socket
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.typist import HANG_S, MAX_TOKENS, Key, keys, replay
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.target import compiler_of
from cloud_verifier.verifier import Verifier
from edge_runtime.drafters import LookupDrafter
from edge_runtime.links import InProcessLink
from edge_runtime.runtime import Runtime
from outrider.engines import EngineSettings
from outrider.manifest import load_folder
from outrider.tokens import TextCodec
from tests.cloud_verifier.test_rest import GatedEngine, until
from tests.edge_runtime.api.tiny import endpoint

NUM_ANSWERED = 6  # tokens
ROOM = 4096


@functools.cache
def following(texts: tuple[tuple[int, ...], ...]) -> dict[tuple[int, ...], int]:
    """What follows the last tokens, so many of them."""
    return {
        text[end - size : end]: text[end] for size in (1, 2, 3, 6) for text in texts for end in range(size, len(text))
    }


class KnowingToy(GatedEngine):
    """Says what followed the last tokens in the texts it knows, where they stand there, and counts what it is given."""

    def __init__(self, texts: list[list[int]], **over: Any) -> None:
        super().__init__(**over)
        self.num_read = 0
        self._following = following(tuple(map(tuple, texts)))
        self.gate.set()

    def extend(self, chunks: Any) -> Any:
        self.num_read += sum(len(chunk.token_ids) for chunk in chunks)
        return super().extend(chunks)

    def _row(self, cache: list[tuple[int, int]]) -> Any:
        row = super()._row(cache)
        last = [token_id for token_id, _ in cache[-6:]]
        known = (self._following.get(tuple(last[-size:])) for size in (6, 3, 2, 1))
        if (token_id := next((token_id for token_id in known if token_id is not None), None)) is not None:
            row[token_id] += 50
        return row


@pytest.fixture(scope="module")
def typed() -> list[Key]:
    return keys()


def test_the_session_has_what_typing_has(typed: list[Key]) -> None:
    gaps = [after.at_s - before.at_s for before, after in pairwise(typed)]
    assert len(typed) > 100
    assert max(gaps) > 1
    assert min(gaps) < 0.06
    lengths = [len(key.before) + len(key.behind) for key in typed]
    steps = [after - before for before, after in pairwise(lengths)]
    assert min(step for step in steps if step > -10) < 0  # a deletion
    assert any(10 < step < 100 for step in steps)  # an accepted suggestion
    assert len({len(key.files) for key in typed}) == 3  # jumps


@contextlib.contextmanager
def served(
    home: Path, *, texts: Sequence[str] = (), constrains: bool = True
) -> Iterator[tuple[Runtime, KnowingToy, VerifierLoop]]:
    folder = load_folder(home / "tiny")
    codec = TextCodec(folder)
    known = texts or {len(key.files): key.before + key.behind for key in keys()}.values()  # the session's end
    token_ids = [codec.encode(text, is_start=False) for text in known]
    engine = KnowingToy(token_ids, n_vocab=folder.manifest.n_vocab, max_context=ROOM)
    constrain = compiler_of(folder) if constrains else None
    verifier = Verifier(engine, target="t", vocabulary=folder.manifest.tokenizer_fingerprint, constrain=constrain)
    loop = VerifierLoop(verifier)
    try:
        with Runtime(codec, folder, LookupDrafter(), lambda: InProcessLink(loop)) as runtime:
            yield runtime, engine, loop
    finally:
        engine.gate.set()
        loop.close()
        verifier.check_integrity()


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url.removesuffix("/v1"), timeout=HANG_S)


def ask(client: httpx.Client, key: Key, **over: Any) -> dict[str, Any]:
    answer = client.post("/infill", json=key.body(n_predict=NUM_ANSWERED, **over))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_answers_are_those_of_a_server_that_remembers_nothing(home: Path, typed: list[Key]) -> None:
    """And of an engine whose cache is empty."""
    few = typed[:24]
    with served(home) as (runtime, _, _), endpoint(runtime) as url, client_of(url) as client:
        told = [ask(client, key) for key in few]
    assert sum(answer["tokens_recalled"] for answer in told) > NUM_ANSWERED
    for key, answer in list(zip(few, told, strict=True))[7::8]:
        with served(home) as (runtime, _, _), endpoint(runtime) as url, client_of(url) as client:
            fresh = ask(client, key)
        assert fresh["tokens_recalled"] == 0
        assert answer["content"] == fresh["content"]


def test_a_key_costs_what_it_changes(home: Path, typed: list[Key]) -> None:
    """Tokens that the target is given for each key, its answer's included; most of the prompt is never read again."""
    typed = typed[45:]  # three files, and the block that is begun
    with served(home) as (runtime, engine, _), endpoint(runtime) as url, client_of(url) as client:
        costs: list[int] = []
        num_prompt = num_known = 0
        for key in typed:
            before = engine.num_read, engine.num_passes
            answer = ask(client, key)
            costs.append(engine.num_read - before[0])
            num_prompt += answer["tokens_evaluated"]
            if answer["tokens_recalled"] == NUM_ANSWERED:
                num_known += 1
                assert (engine.num_read, engine.num_passes) == before
    print(f"tokens given: {sum(costs)}, for prompts of {num_prompt} in all; median of a key {statistics.median(costs)}")
    dear = {number for number, cost in enumerate(costs) if cost > 10 * NUM_ANSWERED}
    jumps = {0} | {number for number in range(1, len(typed)) if typed[number].files != typed[number - 1].files}
    assert [typed[number].before[-6:] for number in dear - jumps] == ["\n\ndef "]  # a new block is begun
    assert statistics.median(costs) <= NUM_ANSWERED
    assert num_known > len(typed) // 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/infill", "/v1/completions"])
def test_after_a_cancel_there_is_no_further_pass(home: Path, typed: list[Key], path: str, stream: bool) -> None:
    """The next key closes the connection while the prompt is being read."""
    key = typed[0]
    gap = {"model": "auto", "prompt": key.before, "suffix": key.behind} if path == "/v1/completions" else key.body()
    with served(home) as (runtime, engine, loop), endpoint(runtime.without_drafts()) as url:
        engine.gate.clear()
        body = json.dumps({**gap, "stream": stream}).encode()
        host, port = url.split("/")[2].split(":")
        with socket.create_connection((host, int(port))) as editor:
            head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            editor.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert engine.is_in_pass.wait(HANG_S)
            assert engine.num_passes == 0
        until(lambda: loop.num_waiting > 0)  # the verifier is told while its first pass is under way
        engine.gate.set()
        until(lambda: loop.num_connections == 0)
        assert engine.num_passes == 1
        assert engine.num_read == engine.max_chunk  # the rest of the prompt is not read
        with client_of(url) as client:
            again = client.post(path, json=gap)
            assert again.status_code == 200
        num_prompt = again.json()["tokens_evaluated"] if path == "/infill" else again.json()["usage"]["prompt_tokens"]
        assert engine.num_read < num_prompt + 3 * MAX_TOKENS  # and what was read is not again


@pytest.mark.weights
def test_a_real_model_and_the_lines_it_suggests(typed: list[Key]) -> None:
    few = typed[:24]
    settings = EngineSettings(max_context=1024, max_sequences=4)
    with Runtime.local("qwen2.5-coder-0.5b-onnx", "lookup", settings) as runtime:
        with endpoint(runtime) as url:
            found = replay(url, few, is_paced=False)
        with endpoint(runtime) as url, client_of(url) as client:  # another memory
            fresh = [client.post("/infill", json=key.body()).json() for key in few[::8]]
    assert fresh[0]["tokens_recalled"] == 0
    assert [each.content for each in found[::8]] == [answer["content"] for answer in fresh]
    assert all(each.is_whole for each in found)
    assert any("self._entries" in each.content for each in found)
    assert sum(each.num_recalled > 0 for each in found) > len(few) // 4
