"""/infill as editor plugins ask it: their fields, what they read of the answer, and how they are refused."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Unpack

import httpx
import pytest

from edge_runtime.answer import Answering
from edge_runtime.api.filling import AskedGap, Filling
from edge_runtime.api.modes import Mode
from edge_runtime.api.suggestions import Suggestions
from edge_runtime.breaker import Breaker, BreakerPolicy
from edge_runtime.events import Finished
from edge_runtime.options import Options, TokenIds
from edge_runtime.runtime import Runtime
from outrider.choice import SamplingParams
from outrider.infill import Gap
from tests.edge_runtime.api.test_refusals import check_shape, toy
from tests.edge_runtime.api.test_typing import HANG_S, ROOM, client_of, served
from tests.edge_runtime.api.tiny import SETTINGS, endpoint

# What llama.vim asks for, by path, and reads.
READ_BY_VIM = [
    "content",
    "timings/prompt_n",
    "timings/prompt_ms",
    "timings/prompt_per_token_ms",
    "timings/prompt_per_second",
    "timings/predicted_n",
    "timings/predicted_ms",
    "timings/predicted_per_token_ms",
    "timings/predicted_per_second",
    "truncated",
    "tokens_cached",
]
# What it sends, and llama.vscode as well.
SENT: dict[str, Any] = {
    "input_prefix": "def hello(name):\n",
    "prompt": "    return he",
    "input_suffix": "\n\nhello()\n",
    "input_extra": [{"filename": "a.py", "text": "hello = 1\n", "time": [1, 2]}],
    "n_predict": 8,
    "n_indent": 4,
    "top_k": 40,
    "top_p": 0.99,
    "stream": False,
    "samplers": ["top_k", "top_p", "infill"],
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
    "t_max_predict_ms": 1500,
    "stop": [],
    "lora": [{"id": 0, "scale": 0.5}],
}
CODE = "def area(width, height):\n    size = width * height\n    return size\n\n\ndef next_one():\n    pass\n"


def asked(client: httpx.Client, **over: Any) -> dict[str, Any]:
    answer = client.post("/infill", json=over)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with client_of(url) as client:
        yield client


def test_what_llama_vim_reads_is_there_by_path(client: httpx.Client) -> None:
    answer = client.post("/infill", json={**SENT, "response_fields": READ_BY_VIM})
    assert answer.headers["x-outrider-state"] == "verified"
    assert list(answer.json()) == READ_BY_VIM
    assert all(isinstance(answer.json()[path], float) for path in READ_BY_VIM if path.endswith(("_ms", "_second")))


def test_what_llama_vscode_reads_is_there(client: httpx.Client) -> None:
    answer = asked(client, **SENT)
    assert isinstance(answer["content"], str)
    assert answer["tokens_cached"] == answer["tokens_evaluated"] + answer["tokens_predicted"]
    assert answer["truncated"] is False
    numbers = ("prompt_n", "prompt_ms", "prompt_per_second", "predicted_n", "predicted_ms", "predicted_per_second")
    assert all(name in answer["timings"] for name in numbers)
    assert answer["system_fingerprint"].startswith("fp_")
    assert answer["x_outrider"]["state"] == "verified"


def test_a_stream_is_the_same_answer_in_pieces(client: httpx.Client) -> None:
    gap = {"input_prefix": "hello wor", "input_suffix": " he", "n_predict": 12}
    told = client.post("/infill", json={**gap, "stream": True})
    events = [json.loads(event.removeprefix("data: ")) for event in told.text.strip().split("\n\n")]
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]
    assert "".join(event["content"] for event in events) == asked(client, **gap)["content"]


def test_two_fields_or_one_are_the_same_text(client: httpx.Client) -> None:
    parted = asked(client, input_prefix="hello\n", prompt="he", n_predict=6)
    assert asked(client, input_prefix="hello\nhe", n_predict=6)["content"] == parted["content"]


def test_chance_is_asked_for(client: httpx.Client) -> None:
    """Unset, the temperature is 0; with a seed the same chance comes again."""
    gap = {"input_prefix": "hello", "n_predict": 16}
    plain = asked(client, **gap)["content"]
    assert asked(client, **gap, top_k=5, seed=3)["content"] == plain
    first, second = (asked(client, **gap, temperature=2, seed=3) for _ in range(2))
    assert first["content"] == second["content"] != plain
    assert second["tokens_recalled"] == 0


def test_a_seed_of_llama_cpp_s_that_is_none_is_drawn(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def draw(num_bits: int) -> int:
        drawn.append(num_bits)
        return 3

    monkeypatch.setattr("edge_runtime.api.infill.secrets.randbits", draw)
    gap = {"input_prefix": "hello", "n_predict": 16, "temperature": 2}
    given, *others = (asked(client, **gap, seed=seed)["content"] for seed in (3, -1, None))
    assert others == [given, given]
    assert len(drawn) == 2


def test_a_prompt_read_before_is_not_read_again(home: Path) -> None:
    """n_predict 0, as plugins send it with the files that they have found."""
    files = [{"filename": "other.py", "text": CODE * 20}]
    with served(home) as (runtime, engine, _), endpoint(runtime) as url, client_of(url) as client:
        warm = asked(client, input_extra=files, n_predict=0, response_fields=[""])
        assert warm == {}
        num_warm = engine.num_read
        answer = asked(client, input_extra=files, input_prefix="def area(", input_suffix="\n", n_predict=2)
        assert answer["tokens_predicted"] == 2
        assert answer["tokens_evaluated"] > num_warm - 5 > 500
        assert engine.num_read - num_warm < 40


@pytest.fixture
def knowing(home: Path) -> Iterator[httpx.Client]:
    """A server whose target knows CODE."""
    with served(home, texts=[CODE]) as (runtime, _, _), endpoint(runtime) as url, client_of(url) as client:
        yield client


def test_an_answer_ends_where_the_block_does(knowing: httpx.Client) -> None:
    gap = {"input_prefix": CODE[:25] + "    si", "n_predict": 60}
    whole = asked(knowing, **gap)["content"]
    assert whole.startswith("ze = width * height\n    return size\n\n\ndef next_one")
    block = asked(knowing, **gap, n_indent=4)
    assert block["content"] == "ze = width * height\n    return size"
    assert (block["stop_type"], block["has_new_line"]) == ("limit", True)


def test_an_answer_ends_at_a_stop_string(knowing: httpx.Client) -> None:
    answer = asked(knowing, input_prefix=CODE[:25] + "    si", n_predict=60, stop=["height\n"])
    assert (answer["content"], answer["stop_type"]) == ("ze = width * ", "word")


def test_what_is_known_is_told_at_once_where_time_is_limited(knowing: httpx.Client) -> None:
    gap = {"input_suffix": "\n", "n_predict": 60, "n_indent": 0}
    first = asked(knowing, input_prefix=CODE[:25] + "    si", **gap, t_max_predict_ms=1)
    assert first["stop_type"] == "limit"
    assert "\n" in first["content"]
    typed_on = asked(knowing, input_prefix=CODE[:25] + "    siz", **gap, t_max_predict_ms=1)
    assert typed_on["content"] == first["content"][1:]
    assert typed_on["timings"]["predicted_n"] == 0
    more = asked(knowing, input_prefix=CODE[:25] + "    siz", **gap)
    assert more["content"].startswith(typed_on["content"])
    assert len(more["content"]) > len(typed_on["content"])


def test_a_word_begun_otherwise_is_gone_on_with(knowing: httpx.Client) -> None:
    """The target would have said `size`: it keeps to what was typed, and is not asked for more than that."""
    answer = asked(knowing, input_prefix=CODE[:25] + "    sp", n_predict=4)
    assert answer["x_outrider"]["state"] == "verified"
    assert not answer["content"].startswith(("size", "ize"))


def test_the_suffix_and_other_files_are_drafted_from(home: Path) -> None:
    line = "total = width * height + depth * length\n"
    gap = {"input_prefix": "total = wi", "n_predict": 32}
    places: dict[str, dict[str, Any]] = {
        "nowhere": {},
        "behind": {"input_suffix": "\n" + line},
        "elsewhere": {"input_extra": [{"filename": "a.py", "text": line}]},
    }
    passes = {}
    for name, more in places.items():
        with served(home, texts=[line]) as (runtime, _, _), endpoint(runtime) as url, client_of(url) as client:
            answer = asked(client, **gap, **more)
        assert answer["content"].startswith("dth * height + depth * length")
        passes[name] = answer["x_outrider"]["passes"]
    assert passes["behind"] < passes["nowhere"] > passes["elsewhere"]


def test_without_grammars_a_word_is_gone_on_with_from_its_middle(home: Path) -> None:
    unable = served(home, texts=[CODE], constrains=False)
    with unable as (runtime, _, _), endpoint(runtime) as url, client_of(url) as client:
        answer = asked(client, input_prefix=CODE[:25] + "    size = wi", n_predict=4)
    assert answer["tokens_predicted"] == 4


@pytest.mark.parametrize(
    ("end", "over"),
    [("\n", {"n_predict": 3}), ("; ", {"n_predict": -1, "n_indent": 1}), ("; ", {"n_predict": 0})],
    ids=str,
)
def test_what_does_not_fit_is_left_out(home: Path, end: str, over: dict[str, int]) -> None:
    gap = {"input_prefix": f"x = 1{end}" * 1500, "input_suffix": f"y = 2{end}" * 1500}
    with served(home) as (runtime, _, _), endpoint(runtime) as url, client_of(url) as client:
        answer = asked(client, **gap, **over)
    assert answer["truncated"] is True
    assert answer["tokens_evaluated"] + answer["tokens_predicted"] <= ROOM


@pytest.mark.parametrize(
    ("over", "status", "code"),
    [
        ({"model": "gpt-9"}, 404, "model_not_found"),
        ({"unheard_of": 1}, 400, "invalid_parameter"),
        ({"input_extra": [{"filename": "a"}]}, 400, "invalid_parameter"),
        ({"n_predict": -2}, 400, "invalid_parameter"),
        ({"stop": ["x"] * 17}, 400, "invalid_parameter"),
        ({"stop": ["x" * 300]}, 400, "invalid_parameter"),
        ({"temperature": 3}, 400, "invalid_parameter"),
        ({"input_prefix": "\ud800"}, 400, "protocol"),
        ({"x_outrider": {"strict": True, "provisional": True}}, 400, "invalid_parameter"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be(client: httpx.Client, over: dict[str, Any], status: int, code: str, stream: bool) -> None:
    content = json.dumps({**SENT, "stream": stream, **over}).encode()
    answer = client.post("/infill", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert check_shape(answer)["code"] == code


def test_a_model_that_fills_no_gaps(home: Path) -> None:
    with toy(home, "plain") as (url, _, _):
        answer = httpx.post(url.replace("/v1", "/infill"), json=SENT, timeout=HANG_S)
    assert answer.status_code == 400
    assert "marks" in check_shape(answer)["message"]


def test_without_a_verifier_a_suggestion_is_the_drafter_s_and_is_not_remembered(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTRIDER_HOME", str(home))
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    gap = {"input_prefix": "hello\nhello wor", "input_suffix": "\n", "n_predict": 6}
    runtime = Runtime.remote(f"http://127.0.0.1:{port}", "tiny", "tiny", SETTINGS)
    runtime._breaker = Breaker(BreakerPolicy(first_s=0.01, longest_s=0.03))
    with runtime, endpoint(runtime, is_remote=True) as url, client_of(url) as client:
        for model in ("auto", "auto", "local"):
            answer = asked(client, **gap, model=model)
            assert answer["x_outrider"]["state"] == "provisional"
            assert answer["content"]
            assert answer["tokens_predicted"] == answer["x_outrider"]["provisional"] == 6
            assert answer["tokens_recalled"] == 0
        assert asked(client, **{**gap, "n_predict": 0})["tokens_predicted"] == 0
        for model, status in (("auto", 503), ("local", 400)):
            refused = client.post("/infill", json={**gap, "model": model}, headers={"X-Outrider-Strict": "true"})
            assert refused.status_code == status
            check_shape(refused)


class LostAtTheEnd(Mode):
    """The verifier is gone when all is said, and the drafter says only that it is the end."""

    async def answer(
        self, prompt: TokenIds, params: SamplingParams, **options: Unpack[Options]
    ) -> AsyncGenerator[Answering, None]:
        async with aclosing(Mode.answer(self, prompt, params, **options)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    event.report.num_provisional = 1
                yield event


@pytest.mark.parametrize(("kind", "num_kept"), [(Mode, 1), (LostAtTheEnd, 0)])
def test_an_end_that_nobody_verified_makes_no_answer_verified(home: Path, kind: type[Mode], num_kept: int) -> None:
    async def main(runtime: Runtime) -> None:
        mode = kind("auto", runtime, runtime.without_drafts(), asyncio.Lock(), asyncio.Event(), 4096)
        suggestions = Suggestions(runtime.codec.bytes_of)
        filling = Filling(AskedGap(mode, Gap("hello\n", "\n"), SamplingParams(), 4, 1000), suggestions)
        assert [text async for text, _ in filling.texts()]
        assert filling.is_verified == bool(num_kept)
        assert len(suggestions) == num_kept

    with served(home) as (runtime, _, _):
        asyncio.run(main(runtime))


def test_the_pair_says_what_its_target_says(pair: Runtime, client: httpx.Client) -> None:
    """With a model that drafts, as without."""
    with endpoint(pair.without_drafts()) as url, client_of(url) as plain:
        for end in ("h", "he", "hello wo"):
            gap = {"input_prefix": "hello world\n" + end, "input_suffix": "\nhello", "n_predict": 10}
            assert asked(client, **gap)["content"] == asked(plain, **gap)["content"]
