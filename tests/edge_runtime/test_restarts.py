"""What a broken link, a past epoch and a cut list leave: guesses go up again, and nothing is credited twice."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from edge_runtime.drafters import CrossVocabularyDrafter, Proposal
from edge_runtime.events import Finished, Token
from edge_runtime.frontier import Frontier
from edge_runtime.pacing import Pace
from edge_runtime.request import GenerationRequest
from edge_runtime.retry import Retry
from edge_runtime.session import Session
from outrider.choice import SamplingParams
from outrider.errors import LinkLost
from outrider.wire import Draft, Open, Opened, Verified, pack_ids, unpack_ids
from tests.drafting import EagerPace


def test_after_a_restart_what_was_shown_goes_up_again() -> None:
    frontier = Frontier([1, 2], [7, 8])
    assert frontier.next_draft() is not None
    assert frontier.next_draft() is None
    frontier.restart()
    again = frontier.next_draft()
    assert again is not None
    assert (again.epoch, again.start, unpack_ids(again.token_ids)) == (1, 2, [7, 8])


def test_an_answer_of_a_past_epoch_is_about_guesses_that_are_gone() -> None:
    frontier = Frontier([1])
    frontier.guess(0, 1, Proposal("model", [5, 6], [0.5, 0.5]))
    assert frontier.next_draft() is not None
    assert frontier.commit(Verified(0, 1, pack_ids([9]), 0, 2), limit=9, n_vocab=16).missed
    frontier.guess(1, 2, Proposal("model", [7], [0.5]))
    assert frontier.next_draft() is not None
    outcome = frontier.commit(Verified(0, 2, pack_ids([7, 8]), 1, 1), limit=9, n_vocab=16)
    assert (outcome.checked, outcome.num_accepted, outcome.num_agreed) == ([], 0, 1)
    assert [token.drafted_by for token in outcome.tokens] == [None, None]


class Cut:
    """Opened twice: the first connection breaks when a draft has come, the second waits for one."""

    bytes_up = bytes_down = 0
    rtt_ms = None
    is_padded = False

    def __init__(self) -> None:
        self.drafts: list[list[Draft]] = []
        self._told: asyncio.Queue[Opened | Verified | None] = asyncio.Queue()

    async def open(self) -> None:
        self.drafts.append([])
        self._told = asyncio.Queue()

    async def send(self, message: object) -> None:
        if isinstance(message, Open):
            start = len(unpack_ids(message.token_ids))
            self._told.put_nowait(Opened("s", "t", "v", 16, 64, 8, 0))
            self._told.put_nowait(Verified(0, start, pack_ids([start + 1]), 0, 0))
        elif isinstance(message, Draft):
            self.drafts[-1].append(message)
            is_last = len(self.drafts) == 2
            self._told.put_nowait(Verified(message.epoch, 5, pack_ids([6, 7, 8]), 2, 2, "length") if is_last else None)

    async def receive(self) -> Opened | Verified:
        message = await self._told.get()
        if message is None:
            raise LinkLost("gone")
        return message

    async def close(self) -> None:
        """Nothing to leave."""


class Counting:
    """Says what comes next in 1, 2, 3 …, two at a time."""

    name, can_answer = "counting", False

    def prefill(self, token_ids: object) -> None:
        """Nothing to get ready."""

    def propose(self, token_ids: list[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        ids = [token_ids[-1] + 1, token_ids[-1] + 2][:max_drafts]
        return Proposal(self.name, ids, [0.5] * len(ids))

    def close(self) -> None:
        """Nothing to free."""


def test_what_a_broken_link_took_with_it_is_drafted_and_sent_anew() -> None:
    link, told = Cut(), []

    async def run() -> None:
        with ThreadPoolExecutor(1) as executor:
            session = Session(link, Counting(), Pace(), executor, retry=Retry(base_s=0.0))
            async with asyncio.timeout(1):
                async for event in session.generate(GenerationRequest([1, 2, 3], max_tokens=5)):
                    told.append(event)

    asyncio.run(run())
    assert [event.token_id for event in told if isinstance(event, Token)] == [4, 5, 6, 7, 8]
    assert isinstance(told[-1], Finished)
    sent = [[(draft.epoch, draft.start, unpack_ids(draft.token_ids)) for draft in each] for each in link.drafts]
    assert sent == [[(0, 4, [5, 6])], [(1, 5, [6, 7])]]


class Pieces:
    """A codec whose tokens are these words and single letters, the longest first."""

    prefix, control_ids = b"", {}

    def __init__(self, *words: str) -> None:
        self.pieces = [*words, *"abcdefghijklmnopqrstuvwxyz !"]
        self.tokenizer = SimpleNamespace(encode=lambda text, **_: SimpleNamespace(ids=self.encode(text)))

    def bytes_of(self, token_id: int) -> bytes:
        return self.pieces[token_id].encode()

    def text_of(self, token_ids: list[int]) -> str:
        return "".join(self.pieces[token_id] for token_id in token_ids)

    def encode(self, text: str) -> list[int]:
        ids = []
        while text:
            ids.append(next(number for number, piece in enumerate(self.pieces) if text.startswith(piece)))
            text = text.removeprefix(self.pieces[ids[-1]])
        return ids


class Telling:
    """A drafter that knows what comes after some texts."""

    name, can_answer = "foreign", True

    def __init__(self, codec: Pieces, after: dict[str, str]) -> None:
        self._codec, self._after = codec, after

    def prefill(self, token_ids: object) -> None:
        """Nothing to get ready."""

    def propose(self, token_ids: list[int], params: SamplingParams, pace: Pace, max_drafts: int) -> Proposal:
        said = self._after.get(self._codec.text_of(token_ids), "!")
        return Proposal(self.name, self._codec.encode(said), [0.9])

    def close(self) -> None:
        """Nothing to free."""


def test_a_list_that_was_cut_within_a_token_of_the_drafter_s_is_drafted_for_all_the_same() -> None:
    own, target = Pieces(" hello"), Pieces()
    drafter = CrossVocabularyDrafter(Telling(own, {"say hel": "p"}), own, target)
    drafter.propose(target.encode("say hello"), SamplingParams(), EagerPace(), 1)
    proposal = drafter.propose(target.encode("say hel"), SamplingParams(), EagerPace(), 1)
    assert target.text_of(proposal.token_ids) == "p"
