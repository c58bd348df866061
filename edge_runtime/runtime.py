"""Text in, the target's text out: what an app holds. Owns the parts of one target and closes them.

Knows what a prompt is; leaves tokens to the session, models to the engines and the choice of parts to `parts.py`.
"""

import ssl
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from dataclasses import replace
from types import TracebackType
from typing import Self, Unpack

from cloud_verifier.target import LocalVerifier, open_verifier
from edge_runtime.answer import Answering, tell
from edge_runtime.blocking import iterate
from edge_runtime.breaker import Breaker
from edge_runtime.drafters import Drafter
from edge_runtime.journal import Asked, Journal, Scribe
from edge_runtime.knobs import LINKED, Knobs, pace_of
from edge_runtime.links import InProcessLink, Link, LinkSwitch, NoLink, SwitchedLink, WebSocketLink
from edge_runtime.options import Message, Options, TokenIds, check_request
from edge_runtime.parts import DEFAULT_TARGET, open_drafter, past_of, tokenizer_source
from edge_runtime.prompting import ask, request_for
from edge_runtime.session import Session
from outrider import catalog
from outrider.choice import SamplingParams
from outrider.engines import EngineSettings
from outrider.errors import InvalidParameter, VocabularyMismatch
from outrider.manifest import Manifest, ModelFolder
from outrider.progress import Progress, silent
from outrider.tokens import TextCodec

__all__ = ["Runtime"]


class Runtime:
    """One target, here or behind a link, and a drafter for it. Make one with `local` or `remote`; close it.

    with Runtime.local() as runtime:
        for event in runtime.answer("Write a haiku."):
            if isinstance(event, Piece):
                print(event.text, end="")
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
        journal: Journal | None = None,
        drafting: ThreadPoolExecutor | None = None,
        knobs: Knobs | None = None,
    ) -> None:
        self.drafter = drafter
        self.link_switch = LinkSwitch()
        self._codec = codec
        self._folder = folder
        self._manifest = folder.manifest
        self._target = target
        self._open_link = open_link
        self._journal = journal
        self._breaker = Breaker()
        self._verifier = verifier
        # Beside each other on the same processor they take turns; over a link the drafter runs ahead.
        self._knobs = knobs or (Knobs() if verifier else LINKED)
        self._pace = pace_of(self._knobs, verifier.pass_ms if verifier else None)
        self._drafting = drafting or ThreadPoolExecutor(max_workers=1, thread_name_prefix="drafter")

    @classmethod
    def local(
        cls,
        target: str = DEFAULT_TARGET,
        drafter: str = "auto",
        settings: EngineSettings | None = None,
        progress: Progress = silent,
        *,
        journal: Journal | None = None,
        uses_past: bool = False,
        knobs: Knobs | None = None,
    ) -> Self:
        """Target and drafter both on this device. Raises an OutriderError and leaves nothing running.

        Answers are kept in `journal`; with `uses_past` what is in it is drafted from, too. `knobs` are what `tune`
        found; a `drafter` that is named comes before theirs.
        """
        settings, knobs = settings or EngineSettings(), knobs or Knobs()
        drafter = knobs.drafter if drafter == "auto" else drafter
        folder = catalog.find(target)
        codec = TextCodec(folder)
        past = past_of(journal, folder.manifest.tokenizer_fingerprint) if journal and uses_past else None
        drafting = open_drafter(drafter, folder, knobs.drafting(settings), progress, past)
        try:
            verifier = open_verifier(folder, knobs.verifying(settings), progress)
        except BaseException:
            if drafting is not None:
                drafting.close()
            raise
        return cls(
            codec,
            folder,
            drafting,
            lambda: InProcessLink(verifier.loop),
            verifier=verifier,
            journal=journal,
            knobs=knobs,
        )

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
        journal: Journal | None = None,
        uses_past: bool = False,
        vocabulary: str = "",
        knobs: Knobs | None = None,
    ) -> Self:
        """The target behind `url`, whatever it is; with `target` that one and no other (ModelMismatch).

        Nothing of the target is loaded here: the tokenizer is that of `target`'s folder or of the drafter's.
        With `vocabulary`, a fingerprint, it is any tokenizer on this machine that has that. `token` and `tls` are what
        the verifier is shown and what of it is trusted, as for WebSocketLink; `journal`, `uses_past` and
        `knobs` as for `local`.
        """
        knobs = knobs or LINKED
        drafter = knobs.drafter if drafter == "auto" else drafter
        WebSocketLink(url)  # a bad address is told before anything is loaded
        folder = catalog.find(target or tokenizer_source(drafter, vocabulary))
        codec = TextCodec(folder)
        past = past_of(journal, folder.manifest.tokenizer_fingerprint) if journal and uses_past else None
        drafting = open_drafter(drafter, folder, knobs.drafting(settings or EngineSettings()), progress, past)
        asked = folder.manifest.fingerprint if target else ""
        return cls(
            codec,
            folder,
            drafting,
            lambda: WebSocketLink(url, token=token, tls=tls),
            target=asked,
            journal=journal,
            knobs=knobs,
        )

    async def generate(
        self,
        prompt: str | TokenIds | Sequence[Message],
        params: SamplingParams | None = None,
        **options: Unpack[Options],
    ) -> AsyncGenerator[Answering, None]:
        """The target's answer to a prompt or to the last of a conversation's messages, then Finished.

        Tokens are verified. Where no verifier is heard the drafter answers alone, unless `is_strict`: `Alone`, and
        tokens that are provisional until they are told again as verified, or until `Retracted`.

        The answer ends before the first of the strings `stop`; the token that completes it is the last one. With
        `num_logprobs` from 0 on each token has the target's log-probability, and those of so many likeliest ids.
        With `wants_receipt` Finished carries one, signed where the verifier signs and no stop string cut the answer.
        Of several at once each is the target's; they take turns at the drafter, which reads a list again whenever
        another's was in between (`without_drafts` spares it that). Raises UsageError and its leaves for what cannot be
        done, LinkError and EngineError for what broke. A `search` is the verifier's: nothing is drafted for it, nobody
        answers alone, and text comes as far as it is certain.
        """
        params = params or SamplingParams()
        asked = ask(prompt, params, self._codec, self._manifest, self._target, **options)
        request = replace(
            request_for(asked, asked.target),
            num_logprobs=options.get("num_logprobs", -1),
            wants_signature=options.get("wants_receipt", False),
            is_watched=options.get("is_watched", False),
            answers_alone=self._verifier is None and not options.get("is_strict", False) and not _searches(asked),
        )
        journal = self._journal if options.get("is_kept", True) else None
        with closing(await Scribe.begin(journal, asked, options.get("conversation"))) as scribe:
            async with aclosing(tell(self._session(asked), request, self._codec, asked.stop, scribe)) as events:
                async for event in events:
                    yield event

    def answer(
        self,
        prompt: str | TokenIds | Sequence[Message],
        params: SamplingParams | None = None,
        **options: Unpack[Options],
    ) -> Generator[Answering, None, None]:
        """What `generate` gives, for code that is not asynchronous."""
        return iterate(self.generate(prompt, params, **options))

    async def generate_several(
        self,
        prompt: str | TokenIds | Sequence[Message],
        params: SamplingParams | None = None,
        *,
        n: int,
        **options: Unpack[Options],
    ) -> AsyncGenerator[tuple[int, Answering], None]:
        """`n` answers, one after the other, each event with its answer's number: number i is the one that
        `generate` gives with the seed i higher. Raises what `generate` does."""
        params = params or SamplingParams()
        check_request(prompt, params, n=n, **options)
        for number in range(n):
            answer = self.generate(prompt, replace(params, seed=params.seed + number), **options)
            async with aclosing(answer) as events:
                async for event in events:
                    yield number, event

    async def resume(self, number: int) -> AsyncGenerator[Answering, None]:
        """Go on with a generation of the journal: what it has, as it stands there, and then what the target says.

        Its provisional tokens are confirmed, or retracted once; one that was stopped amid them gets no longer. Never
        answers alone. Raises JournalError, what `generate` does, and VocabularyMismatch for one of another vocabulary.
        """
        if self._journal is None:
            raise InvalidParameter("this runtime keeps no journal; make one with a journal")
        scribe, generation = await Scribe.resume(self._journal, number)
        asked = generation.asked
        with closing(scribe):
            if asked.vocabulary != self._manifest.tokenizer_fingerprint:
                raise VocabularyMismatch(f"answer {number} is of another vocabulary; go on with the model it was of")
            request = replace(
                request_for(asked, generation.target),
                max_tokens=generation.max_tokens,
                verified_ids=generation.verified_ids,
                provisional_ids=generation.provisional_ids,
            )
            async with aclosing(tell(self._session(asked), request, self._codec, asked.stop, scribe)) as events:
                async for event in events:
                    yield event

    def _session(self, asked: Asked) -> Session:
        return Session(
            SwitchedLink(self._open_link(), self.link_switch),
            None if _searches(asked) else self.drafter,
            self._pace,
            self._drafting,
            max_drafts=self._knobs.max_drafts,
            max_ahead=self._knobs.max_ahead,
            patience_ms=self._knobs.patience_ms,
            breaker=self._breaker,
        )

    @property
    def codec(self) -> TextCodec:
        """The target's tokenizer and chat template."""
        return self._codec

    @property
    def manifest(self) -> Manifest:
        """Of the folder that the tokenizer is of."""
        return self._folder.manifest

    def without_drafts(self) -> "Runtime":
        """The same target, which nobody drafts for. It lives as long as this runtime and need not be closed."""
        runtime = Runtime(
            self._codec,
            self._folder,
            None,
            self._open_link,
            target=self._target,
            journal=self._journal,
            drafting=self._drafting,
        )
        runtime.link_switch = self.link_switch
        return runtime

    def alone(self) -> "Runtime":
        """The same drafter, which nobody verifies: what it says is provisional, and kept nowhere, so that nobody hears
        of it later. It lives as long as this runtime."""
        return Runtime(self._codec, self._folder, self.drafter, NoLink, drafting=self._drafting)

    def network_changed(self) -> None:
        """The system says that there is another network, or one again: the verifier is tried soon."""
        self._breaker.network_changed()

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


def _searches(asked: Asked) -> bool:
    return asked.search.num_lanes > 1
