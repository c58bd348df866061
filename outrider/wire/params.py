"""How an answer is chosen, as it travels: the parameters of sampling and of a search."""

from typing import Annotated

import msgspec

from outrider.choice import (
    MAX_BIAS,
    MAX_BIASES,
    MAX_PENALTY,
    MAX_REPETITION,
    MAX_SEED,
    MIN_REPETITION,
    SamplingParams,
)
from outrider.constraint import MAX_GRAMMAR, Grammar
from outrider.errors import ProtocolError
from outrider.search import MAX_LANES, MAX_LENGTH_PENALTY, SearchParams
from outrider.wire.fields import Message, Position, Probability
from outrider.wire.packing import pack_ids, unpack_ids

__all__ = ["Params", "Search"]

Penalty = Annotated[float, msgspec.Meta(ge=-MAX_PENALTY, le=MAX_PENALTY)]
Bias = Annotated[float, msgspec.Meta(ge=-MAX_BIAS, le=MAX_BIAS)]


class Params(Message, frozen=True):
    """SamplingParams as they travel."""

    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)]
    top_k: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)]
    min_p: Probability
    seed: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEED)]
    repetition_penalty: Annotated[float, msgspec.Meta(ge=MIN_REPETITION, le=MAX_REPETITION)] = 1.0
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    bias_ids: Annotated[bytes, msgspec.Meta(max_length=4 * MAX_BIASES)] = b""
    biases: Annotated[list[Bias], msgspec.Meta(max_length=MAX_BIASES)] = msgspec.field(
        default_factory=list
    )  # one an id
    min_tokens: Position = 0
    grammar_kind: Annotated[str, msgspec.Meta(max_length=16)] = ""  # "json_schema", "lark", "regex"; "" for none
    grammar: Annotated[str, msgspec.Meta(max_length=MAX_GRAMMAR)] = ""
    num_prompt: Position = 0  # tokens of the list that are the prompt; the rest is the answer
    acceptance: Annotated[str, msgspec.Meta(max_length=16)] = "coupled"  # or "rejection", refused by a service

    @classmethod
    def of(cls, params: SamplingParams) -> "Params":
        grammar = params.grammar
        return cls(
            params.temperature,
            params.top_k,
            params.top_p,
            params.min_p,
            params.seed,
            params.repetition_penalty,
            params.frequency_penalty,
            params.presence_penalty,
            pack_ids(token_id for token_id, _ in params.logit_bias),
            [bias for _, bias in params.logit_bias],
            params.min_tokens,
            grammar.kind if grammar else "",
            grammar.text if grammar else "",
            params.num_prompt,
            params.acceptance,
        )

    def sampling(self) -> SamplingParams:
        """Raises InvalidParameter for what bounds do not tell, ProtocolError for ids and biases that do not pair up."""
        ids = unpack_ids(self.bias_ids)
        if len(ids) != len(self.biases):
            raise ProtocolError(f"{len(ids)} ids came with {len(self.biases)} biases; check both sides' versions")
        return SamplingParams(
            self.temperature,
            self.top_k,
            self.top_p,
            self.min_p,
            self.seed,
            self.repetition_penalty,
            self.frequency_penalty,
            self.presence_penalty,
            tuple(zip(ids, self.biases, strict=True)),
            self.min_tokens,
            Grammar(self.grammar_kind, self.grammar) if self.grammar_kind or self.grammar else None,
            self.num_prompt,
            self.acceptance,
        )


class Search(Message, frozen=True):
    """SearchParams as they travel."""

    num_beams: Annotated[int, msgspec.Meta(ge=1, le=MAX_LANES)] = 1
    length_penalty: Annotated[float, msgspec.Meta(ge=-MAX_LENGTH_PENALTY, le=MAX_LENGTH_PENALTY)] = 1.0
    best_of: Annotated[int, msgspec.Meta(ge=1, le=MAX_LANES)] = 1

    @classmethod
    def of(cls, params: SearchParams) -> "Search | None":
        return None if params.num_lanes == 1 else cls(params.num_beams, params.length_penalty, params.best_of)

    def params(self) -> SearchParams:
        """Raises InvalidParameter for what bounds do not tell."""
        return SearchParams(self.num_beams, self.length_penalty, self.best_of)
