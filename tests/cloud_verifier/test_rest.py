"""The REST doors over real sockets: the same tokens as any other way, every field bounded, and nobody left behind."""

import contextlib
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.verifier import Verifier
from outrider.acceptance import accept
from outrider.choice import SamplingParams, choose, top_logprobs
from outrider.engines.base import Chunk
from tests.cloud_verifier.test_verifier import PROMPT, SAMPLED, target_alone
from tests.described import MODES, statuses_of
from tests.serving import serving
from tests.toy import ToyEngine

MSGPACK = "application/msgpack"
ROOT = Path(__file__).parents[2]
PARAMS = {"temperature": SAMPLED.temperature, "seed": SAMPLED.seed}
WANT = target_alone(num_tokens=200)
HANG_S = 20.0


class GatedEngine(ToyEngine):
    """Waits in every pass until the gate is open."""

    def __init__(self, **over: Any) -> None:
        super().__init__(**over)
        self.gate = threading.Event()
        self.is_in_pass = threading.Event()

    def extend(self, chunks: Any) -> Any:
        self.is_in_pass.set()
        assert self.gate.wait(HANG_S)
        return super().extend(chunks)


@contextlib.contextmanager
def service(engine: ToyEngine | None = None) -> Iterator[tuple[httpx.Client, VerifierLoop, ToyEngine]]:
    engine = engine or ToyEngine()
    verifier = Verifier(engine, target="t", vocabulary="v")
    loop = VerifierLoop(verifier)
    try:
        with serving(loop) as url, httpx.Client(base_url=url, timeout=HANG_S) as client:
            yield client, loop, engine
    finally:
        loop.close()
        verifier.check_integrity()


@pytest.fixture(scope="module")
def toy() -> Iterator[httpx.Client]:
    with service() as (client, _, _):
        yield client


@pytest.fixture(scope="module")
def idle() -> Iterator[tuple[httpx.Client, ToyEngine]]:
    """A service whose engine nobody gets to: all that is asked of it is refused."""
    with service() as (client, _, engine):
        yield client, engine


def until(condition: Any) -> None:
    end_s = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < end_s, "it never happened"
        time.sleep(0.002)


def wrong(token_id: int) -> int:
    return (token_id + 1) % 16


@pytest.mark.parametrize("num_right", [0, 1, 5, 31, 32, 100])
@pytest.mark.parametrize("num_wrong", [0, 3])
def test_verify_counts_the_drafts_that_are_the_target_s_own(toy: httpx.Client, num_right: int, num_wrong: int) -> None:
    drafts = WANT[:num_right] + [wrong(token_id) for token_id in WANT[num_right : num_right + num_wrong]]
    answer = toy.post("/v1/verify", json={"tokens": PROMPT, "drafts": drafts, "params": PARAMS}).json()
    assert answer == {
        "accepted": num_right,
        "next": WANT[num_right],
        "tokens": WANT[: num_right + 1],
        "target": "t",
    }


def test_verify_repeats_itself_and_goes_on_where_it_left(toy: httpx.Client) -> None:
    """Stateless: a generation may be put together from calls, each with the list so far."""
    drafter = random.Random(3)
    tokens = list(PROMPT)
    while len(tokens) < len(PROMPT) + 60:
        done = len(tokens) - len(PROMPT)
        drafts = [x if drafter.random() < 0.8 else wrong(x) for x in WANT[done : done + drafter.randrange(8)]]
        wish = {"tokens": tokens, "drafts": drafts, "params": PARAMS}
        answers = [toy.post("/v1/verify", json=wish).json() for _ in range(2)]
        assert answers[0] == answers[1]
        tokens += answers[0]["tokens"]
    assert tokens[len(PROMPT) :] == WANT[: len(tokens) - len(PROMPT)]


def test_drafts_that_fit_in_a_pass_take_one() -> None:
    """Tokens and drafts are read together: no pass starts between them."""
    with service() as (client, loop, engine):
        for _ in range(20):
            client.post("/v1/verify", json={"tokens": PROMPT, "drafts": WANT[:2], "params": PARAMS})
        assert engine.num_passes == loop.verifier.num_passes == 20


def random_tree(rng: random.Random) -> tuple[list[int], list[int]]:
    """Some rows lead along the target's own list, the others beside it."""
    drafts: list[int] = []
    parents: list[int] = []
    places = {-1: (0, True)}
    for row in range(rng.randrange(1, 12)):
        parent = rng.randrange(-1, row)
        depth, is_own = places[parent]
        is_own = is_own and rng.random() < 0.6
        drafts.append(WANT[depth] if is_own else wrong(WANT[depth]))
        parents.append(parent)
        places[row] = (depth + 1, is_own)
    return drafts, parents


@pytest.mark.parametrize("supports_tree", [True, False])
def test_verify_walks_a_tree(supports_tree: bool) -> None:
    """Also on an engine that runs none: it takes more passes for the same answer."""
    rng = random.Random(11)
    num_deep = 0
    with service(ToyEngine(supports_tree=supports_tree)) as (client, _, _):
        for _ in range(40):
            drafts, parents = random_tree(rng)
            choices = iter(WANT)
            want, path = accept(drafts, parents, lambda row, choices=choices: next(choices))
            wish = {"tokens": PROMPT, "drafts": drafts, "parents": parents, "params": PARAMS}
            answer = client.post("/v1/verify", json=wish).json()
            assert (answer["tokens"], answer["path"], answer["accepted"]) == (want, path, len(path))
            num_deep += len(path) > 1
    assert num_deep > 5


def reference_logits(token_ids: list[int]) -> np.ndarray:
    engine = ToyEngine()
    return engine.extend([Chunk(engine.allocate(), token_ids)])[0][-1]


def test_logprobs_are_the_target_s_own(toy: httpx.Client) -> None:
    drafts = [*WANT[:3], wrong(WANT[3])]
    wish = {"tokens": PROMPT, "drafts": drafts, "params": PARAMS, "logprobs": 2}
    answer = toy.post("/v1/verify", json=wish).json()
    assert len(answer["logprobs"]) == len(answer["tokens"]) == 4
    for index, found in enumerate(answer["logprobs"]):
        chosen, ids, values = top_logprobs(reference_logits(PROMPT + WANT[:index]), WANT[index], 2)
        assert found["logprob"] == pytest.approx(chosen)
        assert [each["id"] for each in found["top"]] == ids
        assert [each["logprob"] for each in found["top"]] == pytest.approx(values)
    wish = {"tokens": PROMPT, "max_tokens": 4, "params": PARAMS, "logprobs": 2, "stream": False}
    assert toy.post("/v1/generate", json=wish).json()["logprobs"] == answer["logprobs"]


def test_msgpack_says_the_same_as_json(toy: httpx.Client) -> None:
    wish = {"tokens": PROMPT, "drafts": WANT[:4], "params": PARAMS, "logprobs": 1}
    as_json = toy.post("/v1/verify", json=wish)
    packed = msgspec.msgpack.encode(wish)
    answer = toy.post("/v1/verify", content=packed, headers={"content-type": MSGPACK, "accept": MSGPACK})
    assert answer.headers["content-type"] == MSGPACK
    assert msgspec.msgpack.decode(answer.content) == as_json.json()
    refused = toy.post("/v1/verify", content=b"\xc1", headers={"content-type": MSGPACK, "accept": MSGPACK})
    assert msgspec.msgpack.decode(refused.content)["error"]["code"] == "protocol"


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    blocks = [block.split("\n") for block in response.text.split("\n\n") if block]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


@pytest.mark.parametrize("params", [{}, PARAMS], ids=["greedy", "sampled"])
def test_generate_is_the_target_alone(toy: httpx.Client, params: dict[str, Any]) -> None:
    want = target_alone(params=SamplingParams(**params))
    wish = {"tokens": PROMPT, "max_tokens": 60, "params": params}
    response = toy.post("/v1/generate", json=wish)
    assert response.headers["content-type"].startswith("text/event-stream")
    *parts, last = events(response)
    assert {name for name, _ in parts} == {"tokens"}
    assert len(parts) == 60
    assert [token_id for _, part in parts for token_id in part["tokens"]] == want
    assert last == ("finished", {"finish": "length", "num_tokens": 60})
    whole = toy.post("/v1/generate", json={**wish, "stream": False}).json()
    assert whole == {"tokens": want, "finish": "length", "target": "t"}


def test_generate_stops_at_a_stop_id(toy: httpx.Client) -> None:
    wish = {"tokens": PROMPT, "params": PARAMS, "stop_ids": [WANT[5]], "stream": False}
    answer = toy.post("/v1/generate", json=wish).json()
    assert answer["finish"] == "stop"
    assert answer["tokens"] == WANT[: WANT.index(WANT[5]) + 1]


def test_a_fault_in_the_middle_of_a_stream_is_an_event() -> None:
    engine = ToyEngine()
    engine.poison = WANT[6]
    first = WANT.index(WANT[6])
    with service(engine) as (client, _, _):
        response = client.post("/v1/generate", json={"tokens": PROMPT, "params": PARAMS})
        *parts, (name, said) = events(response)
        assert [token_id for _, part in parts for token_id in part["tokens"]] == WANT[: first + 1]
        assert (name, said["error"]["code"]) == ("error", "bad_logits")
        assert said["error"]["request_id"] == response.headers["x-request-id"]
        whole = client.post("/v1/generate", json={"tokens": PROMPT, "params": PARAMS, "stream": False})
        assert (whole.status_code, whole.json()["error"]["code"]) == (500, "bad_logits")


NOT_IDS = [-1, -(2**31), 16, 2**31, 2**63, 2**64, 1.5, True, "3", None, [], float("nan")]
ID_FIELDS = [
    ("/v1/verify", "tokens"),
    ("/v1/verify", "drafts"),
    ("/v1/generate", "tokens"),
    ("/v1/generate", "stop_ids"),
]
GOOD = {
    "/v1/verify": {"tokens": PROMPT, "drafts": WANT[:2]},
    "/v1/generate": {"tokens": PROMPT, "max_tokens": 2, "stream": False},
}
NUMBERS = {
    "max_tokens": (1, 2**24),
    "logprobs": (0, 20),
    "temperature": (0, 100),
    "top_k": (0, 2**31 - 1),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "seed": (0, 2**63 - 1),
}


def post(client: httpx.Client, path: str, body: Any, kind: str) -> httpx.Response:
    content = json.dumps(body).encode() if kind == "json" else msgspec.msgpack.encode(body)
    return client.post(path, content=content, headers={"content-type": f"application/{kind}"})


@pytest.mark.parametrize("kind", ["json", "msgpack"])
def test_what_is_no_token_never_reaches_the_engine(kind: str) -> None:
    """And a session beside it goes on; the last id of the vocabulary is one."""
    with service() as (client, _, engine):
        for path, field in ID_FIELDS:
            for value in NOT_IDS:
                if kind == "msgpack" and value == 2**64:
                    continue  # it has no such number
                answer = post(client, path, {**GOOD[path], field: [*PROMPT, value]}, kind)
                assert answer.status_code == 400, (path, field, value)
                is_json = kind == "msgpack" or not (isinstance(value, float) and value != value)
                assert answer.json()["error"]["code"] == ("invalid_token" if is_json else "protocol"), value
        assert engine.num_passes == 0
        for path, field in ID_FIELDS:
            assert post(client, path, {**GOOD[path], field: [15]}, kind).status_code == 200
        assert engine.num_passes > 0


@pytest.mark.parametrize("kind", ["json", "msgpack"])
@pytest.mark.parametrize("field", list(NUMBERS))
def test_every_number_has_its_bounds(idle: tuple[httpx.Client, ToyEngine], kind: str, field: str) -> None:
    low, high = NUMBERS[field]
    path = "/v1/generate"
    bad = [low - 1, high + 1, 2**63, "1", True, [1], float("nan"), float("inf")]
    client, engine = idle
    for value in bad:
        body = {field: value} if field in ("max_tokens", "logprobs") else {"params": {field: value}}
        answer = post(client, path, {**GOOD[path], **body}, kind)
        assert answer.status_code == 400, value
        assert answer.json()["error"]["code"] in ("invalid_parameter", "protocol"), value
    assert engine.num_passes == 0


@pytest.mark.parametrize(
    ("over", "status", "code"),
    [
        ({"tokens": []}, 400, "empty_prompt"),
        ({"tokens": [1] * 512}, 400, "context_exceeded"),
        ({"tokens": [1] * 510, "drafts": [1, 1]}, 400, "context_exceeded"),
        ({"drafts": [1] * 257}, 400, "invalid_parameter"),
        ({"parents": [-1]}, 400, "invalid_parameter"),
        ({"parents": [0, -1]}, 400, "invalid_parameter"),
        ({"parents": [-1, -2]}, 400, "invalid_parameter"),
        ({"target": "another"}, 409, "model_mismatch"),
        ({"vocabulary": "another"}, 409, "vocabulary_mismatch"),
        ({"target": "x" * 129}, 400, "invalid_parameter"),
        ({"unknown": 1}, 400, "invalid_parameter"),
        ({"params": {"top_p": 0}}, 400, "invalid_parameter"),
    ],
)
def test_what_cannot_be_verified_is_refused_with_a_code(
    toy: httpx.Client, over: dict[str, Any], status: int, code: str
) -> None:
    answer = toy.post("/v1/verify", json={**GOOD["/v1/verify"], **over})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]


def test_what_just_fits_is_verified(toy: httpx.Client) -> None:
    answer = toy.post("/v1/verify", json={"tokens": [1] * 509, "drafts": [1, 1]})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "content", "content_type", "status"),
    [
        ("POST", "/v1/verify", b"{}", "text/plain", 415),
        ("POST", "/v1/verify", b"{}", "", 415),
        ("POST", "/v1/verify", b"", "application/json", 400),
        ("POST", "/v1/verify", b"{", "application/json", 400),
        ("POST", "/v1/verify", b"[" * 50_000, "application/json", 400),
        ("POST", "/v1/verify", b"\x91" * 50_000, MSGPACK, 400),
        ("POST", "/v1/verify", b'"\xff"', "application/json", 400),
        ("GET", "/v1/verify", b"", "", 405),
        ("POST", "/v1/nothing", b"{}", "application/json", 404),
    ],
)
def test_what_is_no_request_is_refused_in_the_same_shape(
    toy: httpx.Client, method: str, path: str, content: bytes, content_type: str, status: int
) -> None:
    answer = toy.request(method, path, content=content, headers={"content-type": content_type} if content_type else {})
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message", "request_id"}


def test_a_refusal_says_when_to_come_again() -> None:
    with service() as (client, loop, _):
        assert client.get("/readyz").json() == {"status": "ready"}
        loop.start_draining()
        for answer in (client.get("/readyz"), client.post("/v1/verify", json=GOOD["/v1/verify"])):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "moved")
            assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/healthz").json() == {"status": "ok"}


def test_a_request_s_id_comes_back_if_it_is_sane(toy: httpx.Client) -> None:
    assert toy.get("/healthz", headers={"x-request-id": "a.b-C_9"}).headers["x-request-id"] == "a.b-C_9"
    made = [toy.get("/healthz", headers={"x-request-id": odd}).headers["x-request-id"] for odd in ("", "a b", "x" * 65)]
    assert len(set(made)) == 3
    assert all(len(each) == 16 for each in made)


def test_models_says_what_runs(toy: httpx.Client) -> None:
    [model] = toy.get("/v1/models").json()["models"]
    assert (model["target"], model["vocabulary"], model["n_vocab"], model["max_context"]) == ("t", "v", 16, 512)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/verify", {"tokens": PROMPT, "drafts": WANT[:100], "params": PARAMS}),
        ("/v1/generate", {"tokens": PROMPT, "max_tokens": 200, "stream": False}),
        ("/v1/generate", {"tokens": PROMPT, "max_tokens": 200, "stream": True}),
    ],
    ids=["verify", "generate", "stream"],
)
def test_a_client_that_leaves_takes_its_session_along(path: str, body: dict[str, Any]) -> None:
    """Heard while the engine is busy: the pass it is in is the last. Who stays gets every pass."""
    engine = GatedEngine()
    with service(engine) as (client, loop, _):
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
            raw.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
            assert engine.is_in_pass.wait(HANG_S)
        until(lambda: loop.num_waiting > 0)  # word of it reached the verifier's queue
        engine.gate.set()
        until(lambda: loop.verifier.num_sessions == 0)
        assert engine.num_passes == 1
        assert client.post(path, json=body).status_code == 200
        assert engine.num_passes > 3


def test_calls_at_once_are_each_their_own_serial_run() -> None:
    rng = random.Random(5)
    prompts = [[rng.randrange(16) for _ in range(rng.randrange(1, 30))] for _ in range(16)]
    answers: dict[int, Any] = {}
    with service(ToyEngine(max_sequences=2, max_batch=2)) as (client, loop, _):

        def ask(index: int) -> None:
            wish = {"tokens": prompts[index], "max_tokens": 40, "params": PARAMS, "stream": False}
            answers[index] = client.post("/v1/generate", json=wish).json()["tokens"]

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert loop.verifier.cache.num_evictions > 0
    for index, prompt in enumerate(prompts):
        assert answers[index] == target_alone(prompt, num_tokens=40), f"prompt {index}"


def test_the_last_word_of_the_target_is_its_choice(toy: httpx.Client) -> None:
    """`next` against the definition, for a greedy call without drafts."""
    answer = toy.post("/v1/verify", json={"tokens": PROMPT, "drafts": []}).json()
    assert answer["next"] == choose(reference_logits(PROMPT), SamplingParams(), len(PROMPT))
    assert answer["accepted"] == 0


def test_the_pages_ask_nobody_else_for_anything(toy: httpx.Client) -> None:
    page = toy.get("/docs").text
    assert "POST /v1/verify" in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://127.0.0.1", "")
    assert "https://" not in page


def test_the_example_of_the_page(toy: httpx.Client) -> None:
    page = (ROOT / "docs" / "protocol.md").read_text()
    [(path, asked, told)] = re.findall(r"```http\nPOST (\S+)\n(.*?)\n\n(.*?)\n```", page, re.DOTALL)
    assert toy.post(path, json=json.loads(asked)).json() == json.loads(told)
    fields = toy.get("/openapi.json").json()["components"]["schemas"]
    for name in ("VerifyRequest", "GenerateRequest", "Sampling", "VerifyAnswer", "Model"):
        for field in fields[name]["properties"]:
            assert f"`{field}`" in page or f'"{field}"' in page, f"docs/protocol.md does not name {field}"


def narrowed(described: dict[str, Any]) -> dict[str, Any]:
    """The description, as far as this model goes and schemathesis writes: ids below 16, JSON."""
    for route in described["paths"].values():
        for method in route.values():
            method.get("requestBody", {}).get("content", {}).pop(MSGPACK, None)
    for name in ("VerifyRequest", "GenerateRequest"):
        fields = described["components"]["schemas"][name]["properties"]
        for field in {"tokens", "drafts", "stop_ids"} & fields.keys():
            fields[field]["items"]["maximum"] = 15
        fields["tokens"]["minItems"] = 1
        fields["target"]["enum"], fields["vocabulary"]["enum"] = ["", "t"], ["", "v"]
    return described


@pytest.mark.parametrize("mode", MODES)
def test_the_service_keeps_to_its_schema(toy: httpx.Client, mode: str) -> None:
    schema = narrowed(toy.get("/openapi.json").json())
    statuses = statuses_of(schema, str(toy.base_url), mode, 20, refuses_wrong=True)
    assert statuses[200 if mode == "positive" else 400] > 10, statuses
