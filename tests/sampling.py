"""Everything a user may ask of a sampler, over the toy, and what the target then says by definition: slow and plain."""

import functools
import json
import math
from collections.abc import Sequence

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from outrider.choice import SamplingParams, choose
from outrider.constraint import Constraint, Grammar, GrammarCompiler
from outrider.engines.base import Chunk
from tests.toy import ToyEngine

PROMPT = [1, 2, 3, 4, 5]
STOP = 15
TEXTS = [*'{}[]":,abcd0123', "<stop>"]  # of the toy's ids

SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "integer"},
        "b": {"type": "array", "items": {"type": "string", "pattern": "^[abcd]*$"}},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
}
JSON = Grammar("json_schema", json.dumps(SCHEMA))
LARK = Grammar("lark", 'start: pair ("," pair)*\npair: /[a-d]+/ ":" /[0-3]/')
HARD = Grammar("lark", 'start: s\ns: s s s s | s s s | s s | "a" | "b" | "a" "b"')
REGEX = Grammar("regex", "[abcd]{8,20}(0|1|2)+,")

FEATURES = {
    "repetition": {"repetition_penalty": 1.5},
    "repetition below one": {"repetition_penalty": 0.7},
    "frequency": {"frequency_penalty": 0.9},
    "presence": {"presence_penalty": 1.1},
    "bias": {"logit_bias": ((3, 2.5), (7, -100.0), (11, 1.5))},
    "min tokens": {"min_tokens": 40, "logit_bias": ((STOP, 4.0),)},
    "json": {"grammar": JSON},
    "lark": {"grammar": LARK},
    "regex": {"grammar": REGEX},
    "all": {
        "repetition_penalty": 1.3,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.4,
        "logit_bias": ((8, 1.5), (STOP, 3.0)),
        "min_tokens": 12,
        "grammar": JSON,
        "top_k": 9,
        "top_p": 0.95,
        "min_p": 0.01,
    },
}
WAYS = {"greedy": {}, "sampled": {"temperature": 1.2, "seed": 5}}


def params_of(feature: str, way: str) -> SamplingParams:
    return SamplingParams(**FEATURES[feature], **WAYS[way], num_prompt=len(PROMPT))


def stop_ids_of(params: SamplingParams) -> list[int]:
    """None where nothing is said about stopping, so that the answer is long."""
    return [STOP] if params.min_tokens or params.grammar else []


def toy_tokenizer() -> str:
    tokenizer = Tokenizer(models.BPE(vocab={text: token_id for token_id, text in enumerate(TEXTS[:-1])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(TEXTS[-1], special=True)])
    return tokenizer.to_str()


@functools.cache
def toy_compiler() -> GrammarCompiler:
    return GrammarCompiler(toy_tokenizer, len(TEXTS), [STOP])


def text_of(token_ids: Sequence[int]) -> str:
    return "".join(TEXTS[token_id] for token_id in token_ids if token_id != STOP)


def adjusted(row: np.ndarray, params: SamplingParams, token_ids: Sequence[int], stop_ids: Sequence[int]) -> np.ndarray:
    """The definition of `History.adjust`: one id at a time, everything counted anew."""
    answer = list(token_ids[params.num_prompt :])
    biases = dict(params.logit_bias)
    row = row.copy()
    for i in range(len(row)):
        row[i] += np.float32(biases.get(i, 0))
        if i in token_ids:
            factor = np.float32(params.repetition_penalty)
            row[i] = row[i] / factor if row[i] > 0 else row[i] * factor
        row[i] -= np.float32(params.frequency_penalty) * np.float32(answer.count(i))
        row[i] -= np.float32(params.presence_penalty) * np.float32(i in answer)
    if params.grammar is not None and (allowed := replayed(params.grammar, answer).allowed()) is not None:
        row[~allowed] = -math.inf
    stops = [i for i in range(len(row)) if i in stop_ids]
    others = [i for i in range(len(row)) if i not in stop_ids and row[i] > -math.inf]
    if len(answer) < params.min_tokens and others:
        row[stops] = -math.inf
    return row


def replayed(grammar: Grammar, answer: Sequence[int]) -> Constraint:
    constraint = toy_compiler()(grammar)
    for token_id in answer:
        constraint.append(token_id)
    return constraint


@functools.cache
def alone(params: SamplingParams, num_tokens: int = 60, prompt: tuple[int, ...] = tuple(PROMPT)) -> tuple[int, ...]:
    """The definition of the output: one token at a time, no verifier, no history."""
    engine = ToyEngine()
    stop_ids = stop_ids_of(params)
    sequence, tokens, new = engine.allocate(), list(prompt), list(prompt)
    while len(tokens) < len(prompt) + num_tokens and tokens[-1] not in stop_ids:
        row = engine.extend([Chunk(sequence, new)])[0][0]
        new = [choose(adjusted(row, params, tokens, stop_ids), params, len(tokens))]
        tokens += new
    return tuple(tokens[len(prompt) :])
