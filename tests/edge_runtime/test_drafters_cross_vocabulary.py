"""A drafter of another vocabulary: the output is the target's own, and where both would say the same text it helps."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.target import open_verifier
from cloud_verifier.verifier import Verifier
from edge_runtime.drafters import CrossVocabularyDrafter, ModelDrafter, Proposal
from edge_runtime.drafters.marked_text import MarkedText, last_seam, shared_controls
from edge_runtime.links import InProcessLink
from edge_runtime.pacing import Pace
from edge_runtime.parts import open_drafter
from outrider import catalog
from outrider.choice import SamplingParams, choose
from outrider.engines import EngineSettings
from outrider.engines.base import Chunk, Logits
from outrider.manifest import ModelFolder, Source, file_sha256
from outrider.tokens import BYTE_OF, TextCodec
from tests.drafting import EagerPace
from tests.edge_runtime.test_session import PARAMS, collect, request_of
from tests.real.test_exactness import SETTINGS
from tests.toy import ToyEngine
from tests.toy_gguf import spm_metadata, toy_metadata, write_model

GREEDY = SamplingParams()
SAMPLED = SamplingParams(temperature=1.2, seed=5)
TEXT = "hello, hello world!\n\n  été 日本語 👩‍👩‍👧 hello 1234 lo\tlol  hell hello.\n" * 2
PROMPT = "hello hello"


def byte_level(specials: list[str], words: list[str], **more: Any) -> dict[str, Any]:
    """A byte-level vocabulary in which each of `words` is a token, merged from the left."""
    merges = list(dict.fromkeys((word[:cut], word[cut]) for word in words for cut in range(1, len(word))))
    pieces = sorted(BYTE_OF) + [left + right for left, right in merges]
    return toy_metadata(
        tokenizer__ggml__tokens=specials + pieces,
        tokenizer__ggml__token_type=[3] * len(specials) + [1] * len(pieces),
        tokenizer__ggml__merges=[f"{left} {right}" for left, right in merges],
        **more,
    )


VOCABULARIES: dict[str, Callable[[], dict[str, Any]]] = {
    "words": toy_metadata,
    "other words": lambda: byte_level(
        ["<|im_end|>", "<pad>", "<|im_start|>"], ["\u0120wo", "lo", "lol", "\u010a\u010a"]
    ),
    "rewrites text": lambda: byte_level(
        ["<s>", "<|im_end|>", "</s>"], ["hell", "\u0120h"], tokenizer__ggml__pre="qwen2"
    ),
    "SentencePiece": spm_metadata,
    "SentencePiece with a prefix": lambda: spm_metadata(tokenizer__ggml__add_space_prefix=True),
}
PAIRS = [("words", name) for name in VOCABULARIES] + [(name, "words") for name in VOCABULARIES if name != "words"]


@pytest.fixture(scope="module")
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests, so that each vocabulary is written once."""
    return tmp_path_factory.mktemp("vocabularies")


def folder_of(tmp_path: Path, name: str) -> ModelFolder:
    path = tmp_path / name.replace(" ", "-")
    if path.exists():
        return catalog.load_folder(path)
    file = write_model(path / "m.gguf", VOCABULARIES[name]())
    return catalog.install_gguf(file, path, name="m", licence="none", source=Source("m", file_sha256(file)))


class Reciter(ToyEngine):
    """Knows one text and says it in its own tokens, then the end token; off the text it speaks as the toy."""

    def __init__(self, codec: TextCodec, text: str) -> None:
        super().__init__(n_vocab=codec.tokenizer.get_vocab_size(), max_sequences=4)
        self._pieces = [codec.bytes_of(token_id) for token_id in range(self.n_vocab)]
        self._prefix, self._text = codec.prefix, text.encode()
        self._token_at = {len(text.encode()): codec.control_ids["eos_token"]}
        position = -len(codec.prefix)
        for token_id in codec.tokenizer.encode(text, add_special_tokens=False).ids:
            self._token_at[max(0, position)] = token_id
            position += len(codec.bytes_of(token_id))

    def _row(self, cache: list[tuple[int, int]]) -> Logits:
        said = b"".join([self._pieces[token_id] for token_id, _ in cache]).removeprefix(self._prefix)
        token_id = self._token_at.get(len(said)) if self._text.startswith(said) else None
        if token_id is None:
            return super()._row(cache)
        row = np.zeros(self.n_vocab, np.float32)
        row[token_id] = 9
        return row


def make(tmp_path: Path, target: str, own: str, engine: Callable[[TextCodec], ToyEngine]) -> CrossVocabularyDrafter:
    codec = TextCodec(folder_of(tmp_path, own))
    model = ModelDrafter(engine(codec), name="foreign")
    return CrossVocabularyDrafter(model, codec, TextCodec(folder_of(tmp_path, target)))


def run(engine: ToyEngine, drafter: object, *, max_ahead: int = 0, **over: object) -> tuple[list[int], Any]:
    loop = VerifierLoop(Verifier(engine, target="t", vocabulary="v"))
    try:
        tokens, finished = collect(InProcessLink(loop), drafter, request_of(**over), max_ahead=max_ahead)
    finally:
        loop.close()
    return [token.token_id for token in tokens], finished.report


def said_alone(
    engine: ToyEngine, *, prompt_ids: list[int], params: SamplingParams, max_tokens: int, stop_ids: tuple[int, ...] = ()
) -> list[int]:
    """The definition of the output: one token at a time, no verifier."""
    sequence, token_ids, new = engine.allocate(), list(prompt_ids), prompt_ids
    while len(token_ids) < len(prompt_ids) + max_tokens and (new is prompt_ids or new[0] not in stop_ids):
        new = [choose(engine.extend([Chunk(sequence, new)])[0][0], params, len(token_ids))]
        token_ids += new
    return token_ids[len(prompt_ids) :]


@pytest.mark.parametrize(
    ("target", "own", "way"),
    # Each vocabulary greedily and sampled, once on either side.
    [(*pair, ["sampled", "greedy"][(number + number // len(VOCABULARIES)) % 2]) for number, pair in enumerate(PAIRS)],
)
def test_the_output_is_the_target_s(tmp_path: Path, target: str, own: str, way: str) -> None:
    """Over toys that say any bytes at all: broken characters, control tokens, ids without text."""
    codec = TextCodec(folder_of(tmp_path, target))
    n_vocab = codec.tokenizer.get_vocab_size()
    over = {"prompt_ids": codec.encode(PROMPT), "params": PARAMS[way], "max_tokens": 40}
    alone = said_alone(ToyEngine(n_vocab=n_vocab), **over)
    drafter = make(tmp_path, target, own, lambda own: ToyEngine(n_vocab=own.tokenizer.get_vocab_size(), seed=9))
    tokens, report = run(ToyEngine(n_vocab=n_vocab), drafter, **over)
    assert tokens == alone
    assert report.num_drafted > 0


@pytest.mark.parametrize(("target", "own"), PAIRS)
def test_what_both_would_say_is_accepted(tmp_path: Path, target: str, own: str) -> None:
    codec = TextCodec(folder_of(tmp_path, target))
    prompt_ids, stop = codec.encode(PROMPT), codec.control_ids["eos_token"]
    over = {"prompt_ids": prompt_ids, "params": GREEDY, "max_tokens": 400, "stop_ids": (stop,)}
    alone = said_alone(Reciter(codec, PROMPT + TEXT), **over)
    assert codec.decode(prompt_ids + alone) == PROMPT + TEXT
    drafter = make(tmp_path, target, own, lambda own: Reciter(own, PROMPT + TEXT))
    tokens, report = run(Reciter(codec, PROMPT + TEXT), drafter, **over)
    assert tokens == alone
    assert report.acceptance > 0.95
    assert report.num_passes < report.num_tokens / 8
    assert run(Reciter(codec, PROMPT + TEXT), drafter, max_ahead=24, **over)[0] == alone


@pytest.mark.parametrize(("target", "own"), PAIRS)
def test_a_list_that_grows_becomes_what_the_drafter_s_own_tokenizer_makes_of_it(
    tmp_path: Path, target: str, own: str
) -> None:
    codec, own_codec = TextCodec(folder_of(tmp_path, target)), TextCodec(folder_of(tmp_path, own))
    ids = codec.encode(PROMPT + TEXT)
    drafter = make(tmp_path, target, own, lambda own: Reciter(own, PROMPT + TEXT))
    num_whole = 0
    for length in range(1, len(ids) + 1):
        drafter.prefill(ids[:length])
        text = codec.decode(ids[:length])
        if not text.endswith("\ufffd") and own_codec.decode(own_codec.encode(text)) == text:
            assert drafter._ids == own_codec.encode(text)
            num_whole += 1
    assert num_whole > 60


@pytest.mark.parametrize(("target", "own"), PAIRS)
def test_whatever_was_asked_before_it_drafts_what_follows(tmp_path: Path, target: str, own: str) -> None:
    """Rewound, asked from the middle of characters, of words and of its own guesses."""
    chance = random.Random(6)
    codec, own_codec = TextCodec(folder_of(tmp_path, target)), TextCodec(folder_of(tmp_path, own))
    ids = codec.encode(PROMPT + TEXT)
    drafter = make(tmp_path, target, own, lambda own: Reciter(own, PROMPT + TEXT))
    num_drafted = num_right = 0
    for _ in range(80):
        length = chance.randrange(4, len(ids))
        drafter.prefill(ids[: chance.randrange(1, len(ids))])
        proposal = drafter.propose(ids[:length], GREEDY, EagerPace(), 5)
        assert codec.decode(ids[:length]).startswith(own_codec.decode(drafter._ids).rstrip("\ufffd"))
        assert len(proposal.confidences) == len(proposal.token_ids) <= 5
        assert all(0 <= value <= 1 for value in proposal.confidences)
        num_drafted += len(proposal.token_ids)
        num_right += sum(a == b for a, b in zip(proposal.token_ids, ids[length:], strict=False))
    assert num_drafted > 80
    assert num_right > 0.85 * num_drafted


def test_drafts_go_on_from_a_list_that_agrees_with_them_at_no_cost(tmp_path: Path) -> None:
    engines: list[Reciter] = []

    def engine(own: TextCodec) -> Reciter:
        engines.append(Reciter(own, PROMPT + TEXT))
        return engines[-1]

    drafter = make(tmp_path, "words", "other words", engine)
    prompt = TextCodec(folder_of(tmp_path, "words")).encode(PROMPT)
    first = drafter.propose(prompt, GREEDY, EagerPace(), 8).token_ids
    num_passes = engines[0].num_passes
    assert len(first) == 8
    for number in range(8):
        again = drafter.propose(prompt + first[:number], GREEDY, EagerPace(), 8 - number).token_ids
        assert again == first[number:]
    assert engines[0].num_passes == num_passes


def test_control_tokens_map_as_written_or_by_role_and_else_not_at_all(tmp_path: Path) -> None:
    words, other, spm = (
        TextCodec(folder_of(tmp_path, name)) for name in ("words", "other words", "SentencePiece with a prefix")
    )
    target_marks, own_marks = shared_controls(words, other)
    assert {words.tokenizer.id_to_token(i) for i in target_marks} == {"<|im_start|>", "<|im_end|>"}
    chat, other_chat = (codec.encode_chat([{"role": "user", "content": "hello"}]) for codec in (words, other))
    target, own = MarkedText(words, target_marks), MarkedText(other, own_marks)
    data = b"".join(map(target.bytes_of, chat))
    assert [token_id for token_id, _ in target.tokens(data)] == chat
    assert [token_id for token_id, _ in own.tokens(data)] == other_chat

    target_marks, own_marks = shared_controls(words, spm)  # none is written alike: end to end
    assert {words.tokenizer.id_to_token(i) for i in target_marks} == {"<|im_end|>"}
    assert {spm.tokenizer.id_to_token(i) for i in own_marks} == {"</s>"}
    assert MarkedText(words, target_marks).bytes_of(1) == b""


def test_control_tokens_written_out_are_text(tmp_path: Path) -> None:
    codec = TextCodec(folder_of(tmp_path, "words"))
    marked = MarkedText(codec, {1: 0})
    ids = [token_id for token_id, _ in marked.tokens(b"<|im_start|>")]
    assert 1 not in ids
    assert codec.decode(ids) == "<|im_start|>"


def test_bytes_that_are_no_text_have_no_tokens(tmp_path: Path) -> None:
    marked = MarkedText(TextCodec(folder_of(tmp_path, "words")), {1: 0})
    mark = marked.bytes_of(1)
    hello = marked.tokens(b"hello")[0][0]
    assert marked.tokens(b"\x80hello\xc3") == [(hello, 6)]
    assert marked.tokens(b"\xe6\x97" + mark + b"hello") == [(1, 5), (hello, 10)]
    assert marked.tokens(b"") == []


def test_seams() -> None:
    for text, seam in [
        (b"hello world x", 11),
        (b"hello world ", 5),  # what follows the space may be another one
        (b"a  b", 0),
        (b"user\xff\x80\x81x", 7),
        (b"", 0),
    ]:
        assert last_seam(text, len(text)) == seam
    assert last_seam(b"hello world x", 8) == 5
    assert 0 < last_seam("é".encode() * 1000, 1999) < 1999
    assert last_seam("é".encode() * 1000, 1999) % 2 == 0


def test_a_vocabulary_that_rewrites_text_drafts_all_the_same(tmp_path: Path) -> None:
    codec = TextCodec(folder_of(tmp_path, "words"))
    text = "hello e\u0301te\u0301 hello hello"
    ids = codec.encode(text)
    drafter = make(
        tmp_path, "words", "rewrites text", lambda own: Reciter(own, "hello \u00e9t\u00e9 hello hello hello!")
    )
    assert codec.decode(drafter.propose(ids, GREEDY, EagerPace(), 3).token_ids).startswith(" hello")


class Counting(Pace):
    """Wants drafts until it was asked so often."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def wants_another(self, source: str, reach: float, num_drafts: int) -> bool:
        self.limit -= 1
        return self.limit >= 0


def test_the_pace_is_heeded_and_a_failing_model_drafts_nothing(tmp_path: Path) -> None:
    prompt = TextCodec(folder_of(tmp_path, "words")).encode(PROMPT)
    drafter = make(tmp_path, "words", "other words", lambda own: Reciter(own, PROMPT + TEXT))
    assert drafter.propose(prompt, GREEDY, Counting(0), 8) == Proposal("foreign")
    some = drafter.propose(prompt, GREEDY, Counting(9), 8).token_ids
    assert some == drafter.propose(prompt, GREEDY, EagerPace(), 8).token_ids[: len(some)]
    drafter = make(
        tmp_path, "words", "other words", lambda own: ToyEngine(n_vocab=own.tokenizer.get_vocab_size(), max_context=4)
    )
    drafter.prefill(prompt * 5)
    assert drafter.propose(prompt * 5, GREEDY, EagerPace(), 8) == Proposal("foreign")
    drafter.close()


@pytest.mark.weights
def test_smollm_drafts_for_qwen(real_store: None, capsys: pytest.CaptureFixture[str]) -> None:
    """On real weights, as `--drafter smollm2-135m-instruct`: the target's tokens, and its drafts are of use."""
    folder = catalog.find("qwen2.5-coder-1.5b-onnx")
    verifier = open_verifier(folder, SETTINGS)
    drafter = open_drafter("smollm2-135m-instruct", folder, EngineSettings(max_context=1024))
    assert isinstance(drafter, CrossVocabularyDrafter)
    chat = [{"role": "user", "content": "Write a Python function that returns the n-th Fibonacci number."}]
    over = {
        "prompt_ids": TextCodec(folder).encode_chat(chat),
        "params": GREEDY,
        "max_tokens": 32,
        "vocabulary": folder.manifest.tokenizer_fingerprint,
    }
    try:
        alone, _ = collect(InProcessLink(verifier.loop), None, request_of(**over))
        tokens, finished = collect(InProcessLink(verifier.loop), drafter, request_of(**over))
    finally:
        drafter.close()
        verifier.close()
    assert [token.token_id for token in tokens] == [token.token_id for token in alone]
    report = finished.report
    with capsys.disabled():
        print(f"\nSmolLM2 for Qwen: {report.num_accepted} of {report.num_drafted} drafts accepted")
    assert report.num_accepted > len(tokens) / 3  # the share of its guesses depends on how many rows are worth it
