"""What rows cost a session whose pass is shared: learned from passes, told as the session's part."""

import random

import pytest

from cloud_verifier.pacing import DEVICE, UNKNOWN_MS, DraftGuard, SessionPace
from cloud_verifier.shared_pass import FADE, PassTimes, SessionsPart

KNEE = 100
PROFILE = dict.fromkeys(range(1, 33), 20.0)
MOST = 512


def real_ms(num_rows: int) -> float:
    """Of a machine on which rows are free up to a point, and not from there on."""
    return 20.0 * max(1.0, num_rows / KNEE)


def learned(num_passes: int = 400) -> PassTimes:
    times, rng = PassTimes(PROFILE, MOST), random.Random(1)
    for _ in range(num_passes):
        rows = rng.randint(1, MOST)
        times.observe(rows, real_ms(rows) * rng.uniform(0.95, 1.05))
    return times


def test_it_begins_with_the_profile_and_goes_on_as_that_rises() -> None:
    assert [PassTimes(PROFILE, MOST)(rows) for rows in (1, 32, 33, 512)] == [20.0] * 4
    rising = PassTimes({rows: 10.0 + rows for rows in range(1, 33)}, MOST)
    assert [rising(rows) for rows in (1, 2, 32)] == [11.0, 12.0, 42.0]
    assert rising(100) == pytest.approx(110.0)
    assert rising(10**6) == rising(MOST)


def test_it_learns_where_rows_begin_to_take_their_time() -> None:
    times = learned()
    for rows in (1, 40, 90, 150, 300, 500):
        assert times(rows) == pytest.approx(real_ms(rows), rel=0.12), rows
    assert all(times(rows) <= times(rows + 1) for rows in range(1, MOST))


def test_a_size_that_took_long_once_is_tried_again() -> None:
    times = PassTimes(PROFILE, MOST)
    times.observe(200, 500.0)  # a hiccup
    assert times(200) == pytest.approx(500.0)
    num_passes = 0
    while times(200) > 25 and num_passes < 1000:
        times.observe(64, 20.0)
        num_passes += 1
    assert 100 < num_passes < 1000


def test_the_latest_passes_count_most() -> None:
    times = PassTimes(PROFILE, MOST)
    for _ in range(60):
        times.observe(64, 20.0)
    for _ in range(60):
        times.observe(64, 40.0)
    assert times(64) == pytest.approx(40.0, rel=2 * FADE**60)


def test_in_other_units_than_milliseconds_nothing_is_learned() -> None:
    times = PassTimes(UNKNOWN_MS, MOST, learns=False)
    times.observe(64, 5000.0)
    assert times(64) == pytest.approx(1 + 0.05 * 63)


def test_alone_in_its_pass_a_session_has_all_of_it() -> None:
    times = PassTimes({rows: 10.0 + rows for rows in range(1, 33)}, MOST)
    part = SessionsPart(times, num_sessions=1, num_others=0)
    assert [part(rows) for rows in (1, 5, 32)] == [times(rows) for rows in (1, 5, 32)]


def test_a_part_follows_what_the_pass_itself_taught() -> None:
    """Planned by a profile of another machine, and paid for when the pass was over."""
    times = PassTimes({rows: 20.0 + 10.0 * rows for rows in range(1, 33)}, MOST)
    part = SessionsPart(times, num_sessions=8, num_others=8)
    times.observe(9, 5.0)
    assert part(1) == times(8) / 8
    assert all(0 < part(rows) <= part(rows + 1) for rows in range(1, MOST))


def test_parts_of_plain_rows_add_up_to_the_pass() -> None:
    times = learned()
    assert 64 * SessionsPart(times, 64, 63)(1) == pytest.approx(times(64))


@pytest.mark.parametrize(
    ("num_sessions", "num_taken"), [(4, 8), (32, 8), (300, 0)], ids=["few sessions", "rows to spare", "none to spare"]
)
def test_drafts_are_taken_where_rows_are_nearly_free_and_not_where_each_takes_its_time(
    num_sessions: int, num_taken: int
) -> None:
    """Drafts that are right three times in four."""
    pace = SessionPace(DraftGuard(real_ms), real_ms)
    cost_ms = SessionsPart(learned(), num_sessions, num_sessions - 1)
    assert pace.num_drafts([(DEVICE, 0.75)] * 8, cost_ms) == num_taken


def test_the_guard_counts_a_session_s_part() -> None:
    """Drafts that missed cost what the pass took longer for them, and that is nothing below the knee."""
    times = PassTimes({rows: real_ms(rows) for rows in range(1, MOST + 1)}, MOST)
    free, dear = DraftGuard(real_ms), DraftGuard(real_ms)
    free.observe(8, 0, 1, cost_ms=SessionsPart(times, 16, 15))
    dear.observe(8, 0, 1, cost_ms=SessionsPart(times, 300, 299))
    assert free.balance_ms == pytest.approx(0.0, abs=1e-9)
    assert dear.balance_ms == pytest.approx(8 * 20.0 / KNEE)
