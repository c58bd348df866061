"""The service on Ray Serve: two replicas on this machine, devices at work, and replicas that leave or are killed."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml
from pydantic import ValidationError

pytest.importorskip("ray")
import ray
from ray import serve

from cloud_verifier.limits import Limits
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.scale import PendingWork, Scale, Settings, application
from cloud_verifier.target import open_verifier
from cloud_verifier.tokens import TokenFile
from edge_runtime.events import Finished
from edge_runtime.links import InProcessLink, Link
from edge_runtime.request import GenerationRequest
from edge_runtime.session import Session
from outrider import catalog
from outrider.choice import SamplingParams
from outrider.engines import EngineSettings
from outrider.errors import Unauthorized
from outrider.wire import Down, Draft, Fault, Opened, Verified
from tests.cloud_verifier.test_verifier import open_message, target_alone
from tests.drafting import EagerPace, ScriptedDrafter
from tests.export.models import write_gguf
from tests.ray_cluster import (
    PATIENCE_S,
    WatchedLink,
    cluster,
    context_of,
    kill,
    num_running,
    replica_for,
    toy_verifier,
    until,
)

pytestmark = pytest.mark.ray

NUM_SESSIONS = 8
NUM_TOKENS = 300
TWO = Scale(replicas=2, grace_s=0)
PAGE = Path(__file__).parents[2] / "docs" / "ray.yaml"


@pytest.fixture(scope="module")
def door() -> Iterator[str]:
    with cluster() as url:
        yield url


@pytest.fixture
def url(door: str) -> str:
    deploy(TWO)
    return door


def deploy(scale: Scale, build: Callable[[], VerifierLoop] = toy_verifier) -> None:
    serve.run(application(build, scale, Limits()))
    until(lambda: num_running() == scale.replicas)


class Devices:
    """Sessions side by side, each with a prompt, a seed and a drafter of its own that is right three times in four."""

    def __init__(self, url: str, num_sessions: int = NUM_SESSIONS) -> None:
        self.links = [WatchedLink(url) for _ in range(num_sessions)]
        self.token_ids: list[list[int]] = [[] for _ in self.links]
        self.num_reopened = 0

    def run(self, held: Collection[int] = (), act: Callable[[], None] = lambda: None) -> None:
        """To the end. Those in `held` stop halfway; when all have, `act` is called, and they go on after it."""
        asyncio.run(asyncio.wait_for(self._run(held, act), 120))

    async def _run(self, held: Collection[int], act: Callable[[], None]) -> None:
        arrived, go_on = asyncio.Barrier(len(held) + 1), asyncio.Event()
        with ThreadPoolExecutor(1) as executor:
            async with asyncio.TaskGroup() as group:
                for number in range(len(self.links)):
                    gate = (arrived, go_on) if number in held else None
                    group.create_task(self._one(number, executor, gate))
                await arrived.wait()
                await asyncio.to_thread(act)
                go_on.set()

    async def _one(
        self, number: int, executor: ThreadPoolExecutor, gate: tuple[asyncio.Barrier, asyncio.Event] | None
    ) -> None:
        prompt, params = self.asked(number)
        script = prompt + self.expected(number)
        drafter = ScriptedDrafter(script, accuracy=0.75, longest=3, n_vocab=16, seed=number)
        session = Session(self.links[number], drafter, EagerPace(), executor)
        async for event in session.generate(GenerationRequest(prompt, NUM_TOKENS, params, vocabulary="v")):
            if isinstance(event, Finished):
                self.num_reopened += event.report.num_reopened
                continue
            assert event.position == len(prompt) + len(self.token_ids[number])
            self.token_ids[number].append(event.token_id)
            if gate is not None and len(self.token_ids[number]) == NUM_TOKENS // 2:
                await gate[0].wait()
                await gate[1].wait()

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
    devices.run(held=[0], act=lambda: kill(devices.links[0].replicas[0]))
    devices.check()
    assert devices.num_reopened >= 1
    assert devices.links[0].replicas[-1] != devices.links[0].replicas[0]
    until(lambda: num_running() == 2)


def test_a_new_version_takes_over_the_sessions_of_the_old(url: str) -> None:
    """Ray starts new replicas and has the old ones leave, while every session is halfway."""
    devices = Devices(url)
    devices.run(held=range(NUM_SESSIONS), act=lambda: deploy(TWO))
    devices.check()
    assert devices.num_reopened >= NUM_SESSIONS
    assert not {link.replicas[0] for link in devices.links} & {link.replicas[-1] for link in devices.links}


def test_a_leaving_replica_says_so(url: str) -> None:
    links = [WatchedLink(url) for _ in range(NUM_SESSIONS)]

    async def run() -> list[Down]:
        for link in links:
            await link.open()
            await link.send(open_message(patience_ms=-1))
            assert isinstance(await link.receive(), Opened)
            await link.send(Draft(0, 5, b""))
            assert isinstance(await link.receive(), Verified)  # and now it waits for drafts
        told = asyncio.gather(*(link.receive() for link in links))
        await asyncio.to_thread(deploy, TWO)
        try:
            return await asyncio.wait_for(told, PATIENCE_S)
        finally:
            for link in links:
                await link.close()

    for message in asyncio.run(run()):
        assert isinstance(message, Fault)
        assert (message.code, message.may_retry) == ("moved", True)


def test_a_device_whose_link_broke_finds_its_replica_again(url: str) -> None:
    devices = Devices(url)

    def cut() -> None:
        for link in devices.links:
            assert link._socket is not None
            link._socket.transport.abort()

    devices.run(held=range(NUM_SESSIONS), act=cut)
    devices.check()
    assert devices.num_reopened == NUM_SESSIONS
    assert all(len(link.replicas) == 2 and len(set(link.replicas)) == 1 for link in devices.links)


def test_verify_calls_with_one_session_id_share_a_replica_and_its_cache(url: str) -> None:
    prompt, params = Devices.asked(0)
    truth = target_alone(prompt, 20, params)
    wanted = {"temperature": params.temperature, "seed": params.seed}
    replicas = set()
    for number in range(16):
        seen = set()
        for length in range(0, 20, 5):
            body = {"tokens": prompt + truth[:length], "drafts": truth[length : length + 4], "params": wanted}
            replica, answer = post(url, str(number), body)
            assert (answer["accepted"], answer["next"]) == (4, truth[length + 4])
            seen.add(replica)
        assert len(seen) == 1
        replicas |= seen
    assert len(replicas) == 2


def test_one_session_id_goes_to_one_replica(url: str) -> None:
    where = {str(number): replica_for(url, str(number)) for number in range(32)}
    assert len(set(where.values())) == 2
    assert {number: replica_for(url, number) for number in where} == where


def test_replicas_let_in_who_has_a_token(door: str, tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    _, secret = file.add("device")
    serve.run(application(toy_verifier, TWO, Limits(), file.path))
    until(lambda: num_running() == 2)
    prompt, params = Devices.asked(0)
    request = GenerationRequest(prompt, NUM_TOKENS, params, vocabulary="v")
    assert tokens_of(WatchedLink(door, secret), request) == target_alone(prompt, NUM_TOKENS, params)
    with pytest.raises(Unauthorized):
        tokens_of(WatchedLink(door, "another"), request)


def dead_first(marker: Path) -> VerifierLoop:
    """The first replica's verifier has ended before it begins."""
    loop = toy_verifier()
    if not marker.exists():
        marker.touch()
        loop.close()
    return loop


def test_a_replica_whose_verifier_ended_is_replaced(door: str, tmp_path: Path) -> None:
    marker = tmp_path / "died"
    deploy(Scale(), partial(dead_first, marker))
    devices = Devices(door, 1)
    devices.run()
    devices.check()
    assert marker.exists()


def test_pending_work_brings_a_replica_and_its_end_takes_it(door: str) -> None:
    serve.run(application(toy_verifier, Scale(max_replicas=2, target_passes=0.01, look_back_s=1.0), Limits()))
    until(lambda: num_running() == 1)

    def load() -> bool:
        devices = Devices(door)
        devices.run()
        devices.check()
        return num_running() == 2

    until(load)
    until(lambda: num_running() == 1)


def test_the_policy_counts_waiting_passes_and_open_sockets() -> None:
    policy = PendingWork(target_passes=2.0, sessions=100)

    def wanted(pending: dict[str, float], num_sockets: int) -> float:
        return policy(context_of(pending, num_sockets))[0]

    assert wanted({"a": 3.0, "b": 5.0}, 10) == 4.0
    assert wanted({"a": 0.0, "b": 0.0}, 150) == 1.5
    assert wanted({}, 0) == 0.0


@contextlib.contextmanager
def serve_run(config: Path) -> Iterator[None]:
    """The command of the page, as an operator runs it."""
    address = ray.get_runtime_context().gcs_address
    process = subprocess.Popen(
        [Path(sys.executable).with_name("serve"), "run", config, "--address", address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(os.environ),
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def test_the_configuration_of_the_page_serves_a_model(door: str, tmp_path: Path) -> None:
    """Last: the command takes Serve down when it ends."""
    folder = catalog.find(str(write_gguf(tmp_path / "toy.gguf")))
    request = GenerationRequest([1, 2, 3], 40, SamplingParams(temperature=1.0, seed=3))
    target = open_verifier(folder, EngineSettings(num_threads=1, max_sequences=4))
    try:
        expected = tokens_of(InProcessLink(target.loop), request)
    finally:
        target.close()

    config = yaml.safe_load(PAGE.read_text())
    assert Settings(**config["applications"][0]["args"]).replicas == 2
    config["applications"][0]["args"]["model"] = str(tmp_path / "toy.gguf")
    config["applications"][0]["args"]["cpus"] = 1
    del config["http_options"]  # the cluster's door stands already
    (tmp_path / "ray.yaml").write_text(yaml.safe_dump(config))
    with serve_run(tmp_path / "ray.yaml"):
        until(lambda: num_running(config["applications"][0]["name"]) == 2)
        assert tokens_of(WatchedLink(door), request) == expected


def test_the_page_names_every_setting_and_ray_knows_its_commands() -> None:
    page = PAGE.with_name("operating-ray.md").read_text()
    table = "\n".join(line for line in page.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", table)) - {"OUTRIDER_HOME"} == set(Settings.model_fields)
    for program, command, options in re.findall(r"^(ray|serve) (\S+)(.*)$", page, re.MULTILINE):
        shown = subprocess.run(
            [Path(sys.executable).with_name(program), command, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for option in re.findall(r"--[a-z-]+", options):
            assert option in shown


@pytest.mark.parametrize("wrong", [{"replica": 2}, {"replicas": 0}, {"grace_s": -1}, {"cpus": "many"}])
def test_settings_that_are_none_are_refused(wrong: dict[str, object]) -> None:
    assert Settings(model="m").model_dump()["replicas"] == 1
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Settings(**{"model": "m", **wrong})


def tokens_of(link: Link, request: GenerationRequest) -> list[int]:
    async def run() -> list[int]:
        with ThreadPoolExecutor(1) as executor:
            events = Session(link, None, EagerPace(), executor).generate(request)
            return [event.token_id async for event in events if not isinstance(event, Finished)]

    return asyncio.run(run())


def post(url: str, session_id: str, body: dict[str, object]) -> tuple[str, dict]:
    response = httpx.post(
        url + "/v1/verify", json=body, headers={"x-session-id": session_id}, timeout=PATIENCE_S, trust_env=False
    )
    assert response.status_code == 200, response.text
    return response.headers["x-outrider-replica"], response.json()
