"""The service on Ray Serve: two replicas on this machine, devices at work, and replicas that leave or are killed."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("ray")
from ray import serve

from cloud_verifier.limits import Limits
from cloud_verifier.scale import Scale, application
from edge_runtime.session import Finished, GenerationRequest, Session
from outrider.choice import SamplingParams
from tests.cloud_verifier.test_verifier import target_alone
from tests.drafting import EagerPace, ScriptedDrafter
from tests.ray_cluster import WatchedLink, cluster, kill, num_running, replica_for, toy_verifier, until

pytestmark = pytest.mark.ray

NUM_SESSIONS = 8
NUM_TOKENS = 300
TWO = Scale(replicas=2, grace_s=1.0)


@pytest.fixture(scope="module")
def door() -> Iterator[str]:
    with cluster() as url:
        yield url


@pytest.fixture
def url(door: str) -> str:
    deploy(TWO)
    return door


def deploy(scale: Scale) -> None:
    serve.run(application(toy_verifier, scale, Limits()))
    until(lambda: num_running() == scale.replicas)


class Devices:
    """Sessions side by side, each with a prompt, a seed and a drafter of its own that is right three times in four."""

    def __init__(self, url: str, num_sessions: int = NUM_SESSIONS) -> None:
        self.links = [WatchedLink(url) for _ in range(num_sessions)]
        self.token_ids: list[list[int]] = [[] for _ in self.links]
        self.num_reopened = 0

    def run(self, after: int | None = None, act: Callable[[], None] = lambda: None) -> None:
        """To the end; `act`, once, when there are `after` tokens in all."""
        asyncio.run(asyncio.wait_for(self._run(after, act), 120))

    async def _run(self, after: int | None, act: Callable[[], None]) -> None:
        self._enough = asyncio.Event()
        self._after = after
        with ThreadPoolExecutor(1) as executor:
            async with asyncio.TaskGroup() as group:
                for number in range(len(self.links)):
                    group.create_task(self._one(number, executor))
                if after is not None:
                    await self._enough.wait()
                    await asyncio.to_thread(act)

    async def _one(self, number: int, executor: ThreadPoolExecutor) -> None:
        prompt, params = self.asked(number)
        script = prompt + self.expected(number)
        drafter = ScriptedDrafter(script, accuracy=0.75, longest=3, n_vocab=16, seed=number)
        session = Session(self.links[number], drafter, EagerPace(), executor)
        request = GenerationRequest(prompt, NUM_TOKENS, params, vocabulary="v")
        async for event in session.generate(request):
            if isinstance(event, Finished):
                self.num_reopened += event.report.num_reopened
                return
            assert event.position == len(prompt) + len(self.token_ids[number])
            self.token_ids[number].append(event.token_id)
            if self._after is not None and sum(map(len, self.token_ids)) >= self._after:
                self._enough.set()

    @staticmethod
    def asked(number: int) -> tuple[list[int], SamplingParams]:
        return [number % 16, 3, 5], SamplingParams(temperature=1.0, seed=number)

    def expected(self, number: int) -> list[int]:
        prompt, params = self.asked(number)
        return target_alone(prompt, NUM_TOKENS, params)

    def check(self) -> None:
        assert self.token_ids == [self.expected(number) for number in range(len(self.links))]


def test_sessions_spread_over_the_replicas_and_stay_where_they_are(url: str) -> None:
    devices = Devices(url, 16)
    devices.run()
    devices.check()
    assert devices.num_reopened == 0
    assert all(len(link.replicas) == 1 for link in devices.links)
    assert len({link.replicas[0] for link in devices.links}) == 2


def test_a_replica_killed_under_load_loses_nothing(url: str) -> None:
    devices = Devices(url)
    devices.run(after=NUM_SESSIONS * NUM_TOKENS // 4, act=lambda: kill(devices.links[0].replicas[0]))
    devices.check()
    assert devices.num_reopened >= 1
    assert devices.links[0].replicas[-1] != devices.links[0].replicas[0]
    until(lambda: num_running() == 2)


def test_a_replica_that_leaves_sends_its_sessions_elsewhere(url: str) -> None:
    devices = Devices(url)
    before = {replica_for(url, str(number)) for number in range(32)}
    devices.run(after=NUM_SESSIONS * NUM_TOKENS // 4, act=lambda: deploy(TWO.model_copy(update={"replicas": 1})))
    devices.check()
    assert len(before) == 2
    print(devices.num_reopened, [link.faults for link in devices.links])


def test_one_session_id_goes_to_one_replica(url: str) -> None:
    where = {str(number): replica_for(url, str(number)) for number in range(32)}
    assert len(set(where.values())) == 2
    assert {number: replica_for(url, number) for number in where} == where
