"""Drafts right, wrong, repeated, stale, early, out of order, between losses of every kind: one list, the target's.

Many random histories of one verifier. Whatever a device or a network does to the messages, every position is verified
once, in order, with the target's own token.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cloud_verifier.limits import Limits
from cloud_verifier.verifier import Verifier
from outrider.wire import Cancel, Draft, Fault, Verified, pack_ids, unpack_ids
from tests.cloud_verifier.test_verifier import PROMPT, open_message, target_alone
from tests.toy import ToyEngine

WANT = target_alone(num_tokens=24)


class AnyOrder(RuleBasedStateMachine):
    @initialize(patience_ms=st.sampled_from([-1, 0]), max_sequences=st.sampled_from([1, 3]), self_drafts=st.booleans())
    def begin(self, patience_ms: int, max_sequences: int, self_drafts: bool) -> None:
        self.over = {"patience_ms": patience_ms, "self_drafts": self_drafts}
        self.got: list[int] = []
        self.sent: list[Draft] = []
        self.epoch = 0
        limits = Limits(resident_tokens=30 if max_sequences == 1 else 10_000)
        self.engine = ToyEngine(max_sequences=max_sequences)
        self.verifier = Verifier(self.engine, target="t", vocabulary="v", limits=limits)
        self._open()

    def _open(self) -> None:
        left = len(WANT) - len(self.got)
        message = open_message(PROMPT + self.got, num_tokens=left, **self.over)
        self.name = self.verifier.open(message).session if left else ""

    @rule(ahead=st.integers(-4, 4), length=st.integers(0, 8), wrong_at=st.integers(0, 12), epochs=st.integers(-1, 1))
    def draft(self, ahead: int, length: int, wrong_at: int, epochs: int) -> None:
        start = max(0, len(PROMPT) + len(self.got) + ahead)
        ids = (PROMPT + WANT)[start : start + length]
        ids = [(token_id + (number == wrong_at)) % 16 for number, token_id in enumerate(ids)]
        self.epoch = max(0, self.epoch + epochs)
        self.sent.append(Draft(self.epoch, start, pack_ids(ids)))
        self.verifier.receive(self.name, self.sent[-1])

    @rule(data=st.data(), times=st.sampled_from([1, 2, 100]))
    def repeat(self, data: st.DataObject, times: int) -> None:
        if self.sent:
            message = data.draw(st.sampled_from(self.sent[-5:]))
            for _ in range(times):
                self.verifier.receive(self.name, message)

    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        for message in data.draw(st.permutations(self.sent[-5:])):
            self.verifier.receive(self.name, message)

    @rule()
    def step(self) -> None:
        for name, message in self.verifier.step():
            if name == self.name and isinstance(message, Verified):
                assert message.start == len(PROMPT) + len(self.got)
                self.got += unpack_ids(message.token_ids)
            elif name == self.name and isinstance(message, Fault):
                assert message.may_retry
                self.sent, self.epoch = [], 0
                self._open()

    @rule()
    def ask_for_a_step(self) -> None:
        self.epoch += 1
        self.verifier.receive(self.name, Draft(self.epoch, len(PROMPT) + len(self.got), b""))
        self.step()

    @rule()
    def lose_the_cache(self) -> None:
        self.verifier.drop_cache(self.name)

    @rule()
    def fail(self) -> None:
        """The engine fails: who was in the pass alone opens again, others have theirs tried again."""
        other = self.verifier.open(open_message([3, 2, 1])).session
        self.engine.fail_next = True
        self.step()
        self.engine.fail_next = False
        self.verifier.close(other)

    @rule(says_so=st.booleans())
    def open_again(self, says_so: bool) -> None:
        if says_so:
            self.verifier.receive(self.name, Cancel())
        else:
            self.verifier.close(self.name)
        self.sent, self.epoch = [], 0
        self._open()

    @invariant()
    def is_the_target_s_list(self) -> None:
        assert self.got == WANT[: len(self.got)]
        self.verifier.check_integrity()

    def teardown(self) -> None:
        """However it went, it can be finished; and then nothing is left."""
        for _ in range(200):
            if len(self.got) == len(WANT):
                break
            self.ask_for_a_step()
            self.is_the_target_s_list()
        assert self.got == WANT
        self.verifier.close(self.name)
        assert self.verifier.num_sessions == 0
        self.verifier.cache.clear()
        assert not self.engine._cache


STEADY = settings(stateful_step_count=10, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


class TestAnyOrder(AnyOrder.TestCase):
    settings = settings(STEADY, max_examples=60)


@pytest.mark.slow
class TestAnyOrderThousands(AnyOrder.TestCase):
    settings = settings(STEADY, max_examples=3000)
