"""The breaker: what it lets through, how often, and that devices come back spread out. All on a clock of its own."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.breaker import Breaker, BreakerPolicy
from outrider.errors import InvalidParameter

SEED = 5
STEP_S = 0.1  # between the looks of a device that has something to ask


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Device:
    """Asks whenever it may, and is answered while the link is up."""

    def __init__(self, clock: Clock, seed: int, policy: BreakerPolicy | None = None) -> None:
        self.clock = clock
        self.breaker = Breaker(policy, clock=clock, chance=random.Random(seed))
        self.attempts: list[float] = []
        self.num_switches = 0

    def look(self, *, is_up: bool) -> None:
        before = self.breaker.state == "closed"
        if self.breaker.may_try():
            self.attempts.append(self.clock.now_s)
            if is_up:
                self.breaker.succeeded()
            else:
                self.breaker.failed()
        self.num_switches += before != (self.breaker.state == "closed")


def run(device: Device, seconds: float, is_up: Callable[[float], bool]) -> None:
    start_s = device.clock.now_s
    for step in range(round(seconds / STEP_S)):
        device.clock.now_s = start_s + step * STEP_S
        device.look(is_up=is_up(step * STEP_S))


def most_openings(policy: BreakerPolicy, seconds: float) -> int:
    """How many waits fit, if every random part were 0: each is at least the bound before it."""
    count, elapsed_s, bound_s = 1, 0.0, policy.first_s
    while elapsed_s + bound_s <= seconds:
        elapsed_s += bound_s
        bound_s = min(2 * bound_s, policy.longest_s)
        count += 1
    return count


def test_a_link_that_works_is_always_tried() -> None:
    device = Device(Clock(), SEED)
    run(device, 60, lambda now_s: True)
    assert len(device.attempts) == 600
    assert device.num_switches == 0


def test_failures_that_are_not_in_a_row_do_not_open_it() -> None:
    breaker = Breaker(BreakerPolicy(failures=3), clock=Clock())
    for _ in range(50):
        for _ in range(2):
            assert breaker.may_try()
            breaker.failed()
        assert breaker.may_try()
        breaker.succeeded()
    assert breaker.num_openings == 0
    for _ in range(3):
        breaker.failed()
    assert breaker.num_openings == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_dead_verifier_costs_a_bounded_number_of_attempts(seed: int) -> None:
    """F6: M failures, then one probe per interval."""
    policy = BreakerPolicy()
    device = Device(Clock(), seed, policy)
    run(device, 600, lambda now_s: False)
    probes = device.attempts[policy.failures :]
    assert len(device.attempts) <= policy.failures - 1 + most_openings(policy, 600)
    bound_s = policy.first_s
    for earlier, later in pairwise(probes):
        assert later - earlier >= bound_s - STEP_S
        bound_s = min(2 * bound_s, policy.longest_s)
    assert len(probes) > 20  # it goes on looking
    assert all(later - earlier <= 2 * policy.longest_s + 2 * STEP_S for earlier, later in pairwise(probes))
    run(device, 2 * policy.longest_s + 1, lambda now_s: True)
    assert device.breaker.state == "closed"


def test_one_probe_at_a_time() -> None:
    clock = Clock()
    breaker = Breaker(BreakerPolicy(failures=1), clock=clock, chance=random.Random(SEED))
    breaker.failed()
    assert not breaker.may_try()
    clock.now_s += breaker.wait_s
    assert breaker.may_try()
    assert [breaker.may_try() for _ in range(20)] == [False] * 20
    breaker.succeeded()
    assert [breaker.may_try() for _ in range(20)] == [True] * 20


def test_a_probe_that_is_never_reported_has_failed() -> None:
    clock = Clock()
    policy = BreakerPolicy(failures=1, probe_s=5)
    breaker = Breaker(policy, clock=clock, chance=random.Random(SEED))
    breaker.failed()
    clock.now_s += breaker.wait_s
    assert breaker.may_try()
    clock.now_s += 4.9
    assert not breaker.may_try()
    clock.now_s += 0.2
    assert not breaker.may_try()
    assert breaker.state == "open"
    clock.now_s += breaker.wait_s
    assert breaker.may_try()


@pytest.mark.parametrize("seed", range(20))
def test_a_flapping_link_switches_a_bounded_number_of_times(seed: int) -> None:
    """F23: 1 s up, 1 s down, 60 times."""

    def is_up(now_s: float) -> bool:
        return now_s % 2 < 1

    policy = BreakerPolicy()
    device = Device(Clock(), seed, policy)
    run(device, 120, is_up)
    assert 2 <= device.num_switches <= 2 * most_openings(policy, 120)
    assert device.num_switches <= 24
    # without a memory of earlier openings it would follow the link
    forgetful = Device(Clock(), seed, BreakerPolicy(longest_s=0.5, calm_s=0.001))
    run(forgetful, 120, is_up)
    assert forgetful.num_switches > 60


def test_it_is_trusted_again_after_calm() -> None:
    clock = Clock()
    policy = BreakerPolicy()
    device = Device(clock, SEED, policy)
    run(device, 60, lambda now_s: False)
    run(device, 2 * policy.longest_s + policy.calm_s + 1, lambda now_s: True)
    for _ in range(policy.failures - 1):
        device.breaker.failed()
    assert device.breaker.state == "closed"
    device.breaker.failed()
    assert device.breaker.state == "open"
    assert device.breaker.wait_s <= policy.first_s


def test_one_failure_on_probation_opens_it_for_longer() -> None:
    clock = Clock()
    policy = BreakerPolicy()
    device = Device(clock, SEED, policy)
    for _ in range(policy.failures):
        device.breaker.failed()
    waits = []
    for _ in range(7):
        waits.append(device.breaker.wait_s)
        clock.now_s += waits[-1]
        assert device.breaker.may_try()
        device.breaker.succeeded()
        assert device.breaker.state == "closed"
        device.breaker.failed()
        assert device.breaker.state == "open"
    for number, wait_s in enumerate(waits[1:], 1):
        assert wait_s >= min(policy.first_s * 2 ** (number - 1), policy.longest_s)


@pytest.mark.parametrize("outage_s", [0.5, 90.0])
def test_fifty_devices_come_back_spread_out(outage_s: float) -> None:
    """F23: the most attempts in any fifth of the time they take is at most twice the mean. Over 60 verifiers."""
    print("seed", SEED)
    policy = BreakerPolicy()
    peaks = []
    for verifier in range(60):
        came = []
        for number in range(50):
            clock = Clock(0.0)
            device = Breaker(policy, clock=clock, chance=random.Random(f"{SEED} {verifier} {number}"))
            for _ in range(policy.failures):
                device.failed()
            while not (device.may_try() and clock.now_s >= outage_s):
                if device.state == "half_open":
                    device.failed()
                clock.now_s += device.wait_s
            came.append(clock.now_s)
        peaks.append(peak_over_mean(came))
    peaks.sort()
    print("median", peaks[30], "worst", peaks[-1])
    assert peaks[len(peaks) // 2] <= 2
    assert peaks[int(0.95 * len(peaks))] <= 2


def peak_over_mean(came: list[float], num_bins: int = 5) -> float:
    """Of the devices' arrivals, over the time that all of them take."""
    first, width = min(came), (max(came) - min(came)) / num_bins or 1.0
    bins = Counter(min(num_bins - 1, int((each - first) / width)) for each in came)
    return max(bins.values()) * num_bins / len(came)


def test_without_jitter_they_would_come_all_at_once() -> None:
    class NoJitter(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    came = []
    for _ in range(50):
        clock = Clock(0.0)
        breaker = Breaker(BreakerPolicy(failures=1), clock=clock, chance=NoJitter())
        breaker.failed()
        came.append(breaker.wait_s)
    assert peak_over_mean(came) == 5


@pytest.mark.parametrize("seed", range(6))
def test_sleep_and_wake_cause_no_burst(seed: int) -> None:
    """F22: an hour passes at once, in every state; then one attempt, and the next not before its wait."""
    policy = BreakerPolicy()
    device = Device(Clock(), seed, policy)
    run(device, 30, lambda now_s: False)
    device.attempts.clear()
    device.clock.now_s += 3600
    run(device, 20, lambda now_s: False)
    assert 1 <= len(device.attempts) <= most_openings(policy, 20)
    assert device.attempts[1:2] == [] or device.attempts[1] - device.attempts[0] >= policy.longest_s - STEP_S
    awake = Device(Clock(), seed, policy)
    run(awake, 5, lambda now_s: True)
    awake.clock.now_s += 3600
    awake.attempts.clear()
    run(awake, 20, lambda now_s: False)
    assert len(awake.attempts) <= policy.failures - 1 + most_openings(policy, 20)


def test_a_clock_set_back_does_not_shut_it_for_long() -> None:
    clock = Clock()
    policy = BreakerPolicy()
    device = Device(clock, SEED, policy)
    run(device, 30, lambda now_s: False)
    clock.now_s -= 900
    assert device.breaker.wait_s <= 2 * policy.longest_s
    run(device, 2 * policy.longest_s + 1, lambda now_s: True)
    assert device.breaker.state == "closed"


def test_a_new_network_is_tried_soon_but_not_in_a_burst() -> None:
    policy = BreakerPolicy()
    device = Device(Clock(), SEED, policy)
    run(device, 60, lambda now_s: False)
    device.breaker.network_changed()
    assert device.breaker.wait_s <= 2 * policy.first_s
    device.attempts.clear()
    start_s = device.clock.now_s
    for step in range(100):  # the radio hops ten times a second
        device.clock.now_s = start_s + step * STEP_S
        device.breaker.network_changed()
        device.look(is_up=False)
    assert len(device.attempts) <= 10 / policy.first_s
    assert all(later - earlier >= policy.first_s - STEP_S for earlier, later in pairwise(device.attempts))


def test_the_verifier_may_ask_for_a_longer_wait() -> None:
    clock = Clock()
    breaker = Breaker(BreakerPolicy(failures=1), clock=clock)
    breaker.failed(retry_after_s=20)
    assert breaker.wait_s >= 20
    clock.now_s += breaker.wait_s
    assert breaker.may_try()
    breaker.failed(retry_after_s=1e9)
    assert breaker.wait_s <= 300


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    spans=st.lists(st.tuples(st.booleans(), st.floats(0.1, 20)), min_size=1, max_size=12),
    jumps=st.lists(st.sampled_from([0.0, 0.0, 0.0, 3600.0, -50.0]), min_size=12, max_size=12),
)
def test_whatever_the_link_does(seed: int, spans: list[tuple[bool, float]], jumps: list[float]) -> None:
    """Openings in the time between calms are bounded, waits are too, and a link that stays up is used again."""
    policy = BreakerPolicy()
    device = Device(Clock(), seed, policy)
    seconds, num_jumps = 0.0, 0
    for (is_up, span_s), jump_s in zip(spans, jumps, strict=False):
        device.clock.now_s += jump_s
        num_jumps += jump_s != 0
        run(device, span_s, lambda now_s, is_up=is_up: is_up)  # type: ignore[misc]
        seconds += span_s
        assert 0 <= device.breaker.wait_s <= 2 * policy.longest_s
        calms = num_jumps + seconds / policy.calm_s
        assert device.breaker.num_openings <= (1 + calms) * most_openings(policy, seconds)
    run(device, 2 * policy.longest_s + 1, lambda now_s: True)
    assert device.breaker.state == "closed"


def test_bounds_of_the_policy() -> None:
    for wrong in ({"failures": 0}, {"first_s": 0}, {"longest_s": float("nan")}, {"first_s": 20.0}):
        with pytest.raises(InvalidParameter):
            BreakerPolicy(**wrong)  # type: ignore[arg-type]
