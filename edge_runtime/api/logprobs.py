"""Log-probabilities of tokens in OpenAI's two shapes. They are the target's own, before temperature and filters."""

from collections.abc import Sequence

from edge_runtime.api.replies import ChatLogprobs, CompletionLogprobs, TokenLogprob, TopLogprob
from edge_runtime.events import Token
from outrider.tokens import StreamDecoder, TextCodec

__all__ = ["chat_logprobs", "completion_logprobs"]

LEAST = -9999.0  # OpenAI's own word for "no chance at all"


def chat_logprobs(codec: TextCodec, tokens: Sequence[Token]) -> ChatLogprobs:
    return ChatLogprobs(
        [
            TokenLogprob(
                *_said(codec, token.token_id, token.logprob),
                [TopLogprob(*_said(codec, *each)) for each in token.top_logprobs],
            )
            for token in tokens
        ]
    )


def completion_logprobs(codec: TextCodec, tokens: Sequence[Token], offset: int) -> CompletionLogprobs:
    """`offset`: characters of the answer before these tokens."""
    decoder = StreamDecoder(codec)
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(decoder.feed(token.token_id))
    return CompletionLogprobs(
        tokens=[_text(codec.bytes_of(token.token_id)) for token in tokens],
        token_logprobs=[_finite(token.logprob) for token in tokens],
        top_logprobs=[
            {_text(codec.bytes_of(token_id)): _finite(value) for token_id, value in token.top_logprobs}
            for token in tokens
        ],
        text_offset=offsets,
    )


def _said(codec: TextCodec, token_id: int, logprob: float | None) -> tuple[str, float, list[int]]:
    data = codec.bytes_of(token_id)
    return _text(data), _finite(logprob), list(data)


def _text(data: bytes) -> str:
    """Half a character is written as OpenAI does, so that two of them differ."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _finite(logprob: float | None) -> float:
    return max(LEAST, LEAST if logprob is None else logprob)
