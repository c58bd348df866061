"""Text in, the target's text out: what an app holds. Owns the parts of one target and closes them.

Knows what a prompt is; leaves tokens to the session, models to the engines and the choice of parts to `parts.py`.
"""

import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from cloud_verifier.target import LocalVerifier, open_verifier
from edge_runtime.ahead import MAX_AHEAD, AheadPace
from edge_runtime.drafters import Drafter
from edge_runtime.energy import EnergyMeter
from edge_runtime.evidence import Provenance, make_receipt
from edge_runtime.frontier import Token
from edge_runtime.links import InProcessLink, Link, WebSocketLink
from edge_runtime.pacing import Pace
from edge_runtime.parts import DEFAULT_TARGET, open_drafter, tokenizer_source
from edge_runtime.session import Finished, GenerationRequest, Session
from outrider import catalog
from outrider.choice import SamplingParams
from outrider.constraint import check_grammar
from outrider.engines import EngineSettings
from outrider.errors import EmptyPrompt, InvalidParameter, OutriderError
from outrider.manifest import ModelFolder
from outrider.progress import Progress, silent
from outrider.stops import StopStrings
from outrider.tokens import StreamDecoder, TextCodec
from outrider.wire import MAX_LOGPROBS

__all__ = ["Finished", "Piece", "Runtime", "check_request"]

MAX_TOKENS = 2**20
MAX_ANSWERS = 128


@dataclass(frozen=True, slots=True)
class Piece:
    """One verified token and the text it completes: empty inside a character, inside what may become a stop string, and
    for control tokens.

    Text without a token is what was left when the answer ended inside a character or the beginnings of a stop string.
    """

    text: str
    token: Token | None


def check_request(
    prompt: str,
    max_tokens: int,
    params: SamplingParams | None = None,
    stop: Sequence[str] = (),
    n: int = 1,
    num_logprobs: int = -1,
) -> None:
    """Raises EmptyPrompt or InvalidParameter, before anything is loaded for a request that cannot be. MissingExtra
    for a grammar, where the library for them is not installed."""
    if not 1 <= max_tokens <= MAX_TOKENS:
        raise InvalidParameter(f"max_tokens is {max_tokens}; give a number from 1 to {MAX_TOKENS}")
    if not prompt.strip():
        raise EmptyPrompt("the prompt is empty; say something")
    StopStrings(stop)
    if not -1 <= num_logprobs <= MAX_LOGPROBS:
        raise InvalidParameter(f"num_logprobs is {num_logprobs}; give -1 for none, or 0 to {MAX_LOGPROBS}")
    if not 1 <= n <= MAX_ANSWERS:
        raise InvalidParameter(f"n is {n}; give a number from 1 to {MAX_ANSWERS}")
    if params is not None:
        replace(params, seed=params.seed + n - 1)
        if params.grammar is not None:
            check_grammar(params.grammar)


class Runtime:
    """One target, here or behind a link, and a drafter for it. Make one with `local` or `remote`; close it.

    with Runtime.local() as runtime:
        async for piece in runtime.generate("Write a haiku."):
            ...
    """

    def __init__(
        self,
        codec: TextCodec,
        folder: ModelFolder,
        drafter: Drafter | None,
        open_link: Callable[[], Link],
        *,
        verifier: LocalVerifier | None = None,
        target: str = "",
    ) -> None:
        self.drafter = drafter
        self._codec = codec
        self._manifest = folder.manifest
        self._target = target
        self._open_link = open_link
        self._verifier = verifier
        # Beside each other on the same processor they take turns; over a link the drafter runs ahead.
        self._pace = Pace(verifier.pass_ms) if verifier else AheadPace()
        self._max_ahead = 0 if verifier else MAX_AHEAD
        self._drafting = ThreadPoolExecutor(max_workers=1, thread_name_prefix="drafter")

    @classmethod
    def local(
        cls,
        target: str = DEFAULT_TARGET,
        drafter: str = "auto",
        settings: EngineSettings | None = None,
        progress: Progress = silent,
    ) -> Self:
        """Target and drafter both on this device. Raises an OutriderError and leaves nothing running."""
        settings = settings or EngineSettings()
        folder = catalog.find(target)
        codec = TextCodec(folder)
        drafting = open_drafter(drafter, folder, settings, progress)
        try:
            verifier = open_verifier(folder, settings, progress)
        except BaseException:
            if drafting is not None:
                drafting.close()
            raise
        return cls(codec, folder, drafting, lambda: InProcessLink(verifier.loop), verifier=verifier)

    @classmethod
    def remote(
        cls,
        url: str,
        target: str | None = None,
        drafter: str = "auto",
        settings: EngineSettings | None = None,
        progress: Progress = silent,
        *,
        token: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """The target behind `url`, whatever it is; with `target` that one and no other (ModelMismatch).

        Nothing of the target is loaded here: the tokenizer is that of `target`'s folder or of the drafter's.
        `token` and `tls` are what the verifier is shown and what of it is trusted, as for WebSocketLink.
        """
        WebSocketLink(url)  # a bad address is told before anything is loaded
        folder = catalog.find(target or tokenizer_source(drafter))
        codec = TextCodec(folder)
        drafting = open_drafter(drafter, folder, settings or EngineSettings(), progress)
        asked = folder.manifest.fingerprint if target else ""
        return cls(codec, folder, drafting, lambda: WebSocketLink(url, token=token, tls=tls), target=asked)

    async def generate(
        self,
        prompt: str,
        params: SamplingParams | None = None,
        *,
        max_tokens: int = 256,
        is_chat: bool = True,
        stop: Sequence[str] = (),
        num_logprobs: int = -1,
        wants_receipt: bool = False,
    ) -> AsyncGenerator[Piece | Finished, None]:
        """The target's answer, token by token, then Finished. Without `is_chat` the prompt is continued as it is.

        The answer ends before the first of the strings `stop`; the token that completes it is the last one. With
        `num_logprobs` from 0 on each token has the target's log-probability, and those of so many likeliest ids.
        With `wants_receipt` Finished carries one, signed where the verifier signs and no stop string cut the answer.
        One generation at a time drafts; a second one waits for the drafter. Raises UsageError and its leaves for what
        cannot be done, LinkError and EngineError for what broke.
        """
        params = params or SamplingParams()
        check_request(prompt, max_tokens, params, stop, num_logprobs=num_logprobs)
        manifest = self._manifest
        encode = self._codec.encode
        prompt_ids = self._codec.encode_chat([{"role": "user", "content": prompt}]) if is_chat else encode(prompt)
        request = GenerationRequest(
            prompt_ids,
            max_tokens,
            replace(params, num_prompt=len(prompt_ids)),
            manifest.stop_ids,
            manifest.tokenizer_fingerprint,
            self._target,
            num_logprobs,
            wants_receipt,
        )
        provenance, meter = Provenance(), EnergyMeter()
        token_ids: list[int] = []
        session = Session(self._open_link(), self.drafter, self._pace, self._drafting, max_ahead=self._max_ahead)
        decoder, stops = StreamDecoder(self._codec), StopStrings(stop)
        finished = Finished("stop", session.report)
        async with aclosing(session.generate(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    finished = event
                    break
                token_ids.append(event.token_id)
                provenance.append(event.drafted_by)
                yield Piece(stops.feed(decoder.feed(event.token_id)), event)
                if stops.is_hit:
                    break
        if rest := stops.feed(decoder.flush()) + stops.flush():
            yield Piece(rest, None)
        if wants_receipt:
            receipt = make_receipt(
                prompt_ids,
                token_ids,
                finished.reason,
                params=request.params,
                vocabulary=manifest.tokenizer_fingerprint,
                report=finished.report,
                provenance=provenance,
                drafters={name: _fingerprint(name) for name in finished.report.accepted_by},
                energy=meter.read(),
                seal=finished.seal,
            )
            finished = replace(finished, receipt=receipt)
        yield finished

    async def generate_several(
        self,
        prompt: str,
        params: SamplingParams | None = None,
        *,
        n: int,
        max_tokens: int = 256,
        is_chat: bool = True,
        stop: Sequence[str] = (),
        num_logprobs: int = -1,
        wants_receipt: bool = False,
    ) -> AsyncGenerator[tuple[int, Piece | Finished], None]:
        """`n` answers, one after the other, each event with its answer's number: number i is the one that
        `generate` gives with the seed i higher. Raises what `generate` does."""
        params = params or SamplingParams()
        check_request(prompt, max_tokens, params, stop, n, num_logprobs)
        for number in range(n):
            seeded = replace(params, seed=params.seed + number)
            answer = self.generate(
                prompt,
                seeded,
                max_tokens=max_tokens,
                is_chat=is_chat,
                stop=stop,
                num_logprobs=num_logprobs,
                wants_receipt=wants_receipt,
            )
            async with aclosing(answer) as events:
                async for event in events:
                    yield number, event

    def close(self) -> None:
        """Stop the verifier and free both models. Safe to call twice."""
        self._drafting.shutdown()
        if self.drafter is not None:
            self.drafter.close()
        if self._verifier is not None:
            self._verifier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fingerprint(drafter: str) -> str:
    """Of a drafter's weights; "" for one without any."""
    try:
        return catalog.find(drafter).manifest.fingerprint
    except OutriderError:
        return ""
