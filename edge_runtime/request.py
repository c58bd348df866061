"""What is asked of a session, the message that asks a verifier for it, and whether what it opened is that."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from outrider.choice import SamplingParams
from outrider.errors import ModelMismatch, ProtocolError, VocabularyMismatch
from outrider.search import SearchParams
from outrider.wire import Open, Opened, Params, Search, pack_ids

__all__ = ["GenerationRequest"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A prompt, and of a generation that was begun before what its answer has so far: verified, then provisional."""

    prompt_ids: Sequence[int]
    max_tokens: int = 256
    params: SamplingParams = field(default_factory=SamplingParams)
    stop_ids: Sequence[int] = ()
    vocabulary: str = ""  # fingerprint of the tokenizer that the ids are of; "" leaves the check to the caller
    target: str = ""  # fingerprint of the target's weights; "" takes whatever the verifier runs
    num_logprobs: int = -1  # likeliest ids told with each token; 0 the token's own log-probability alone, -1 none
    wants_signature: bool = False  # of the verifier, under what it chose
    self_drafts: bool = False  # where no drafts of the device wait, the verifier may make its own
    answers_alone: bool = False  # while no verifier is heard the drafter answers, provisionally
    verified_ids: Sequence[int] = ()
    provisional_ids: Sequence[int] = ()
    search: SearchParams = field(default_factory=SearchParams)  # one that searches takes no drafter

    @property
    def limit(self) -> int:
        """Where the list ends."""
        return len(self.prompt_ids) + self.max_tokens

    def opening(self, token_ids: Sequence[int], target: str, *, patience_ms: int, is_padded: bool) -> Open:
        """To go on after `token_ids`, with no target but `target` ("": any)."""
        return Open(
            vocabulary=self.vocabulary,
            target=target,
            params=Params.of(self.params),
            limit=self.limit,
            patience_ms=patience_ms,
            stop_ids=pack_ids(self.stop_ids),
            token_ids=pack_ids(token_ids),
            num_logprobs=self.num_logprobs,
            is_padded=is_padded,
            wants_signature=self.wants_signature,
            search=Search.of(self.search),
            self_drafts=self.self_drafts,
        )

    def check(self, opened: object, length: int, target: str) -> Opened:
        """What a verifier opened for a list of `length` tokens. It checks what `opening` names; so does this."""
        if not isinstance(opened, Opened) or not length < opened.limit <= self.limit:
            raise ProtocolError("the verifier did not open the session; check both sides' versions")
        if target not in ("", opened.target):
            raise ModelMismatch(f"the verifier runs target {opened.target[:12]}, not {target[:12]}; begin anew with it")
        if self.vocabulary not in ("", opened.vocabulary):
            raise VocabularyMismatch(
                f"the verifier's vocabulary is {opened.vocabulary[:12]}, not {self.vocabulary[:12]}; choose another"
            )
        return opened
