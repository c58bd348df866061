"""Suite `service`: its arithmetic on passes made up."""

import pytest

from benchmarks import service
from cloud_verifier.turn import PassReport


def report(elapsed_s: float, num_filled: int = 0, **over: list[int]) -> PassReport:
    return PassReport(elapsed_s, 1, 4, num_filled, **over)


def test_figures_leave_prompts_out_and_count_whole_cycles() -> None:
    passes = [
        (1.0, report(0.9, num_filled=3, drafted=[0], accepted=[0], emitted=[1])),
        (2.0, report(0.8, drafted=[4, 2], accepted=[3, 0], emitted=[4, 1])),
        (3.5, report(0.9, num_filled=3)),
        (4.0, report(0.4, drafted=[0], accepted=[0], emitted=[1])),
    ]
    found = service.figures(passes, is_always_ready=True)
    assert (found.num_tokens, found.num_passes, found.num_rows) == (6, 2, 8)
    assert found.verifier_s == pytest.approx(1.2)
    assert found.tokens_per_s == pytest.approx(5.0)
    assert found.passes_per_token == pytest.approx(1 / 3)
    assert found.acceptance == 0.5
    assert found.overhead == pytest.approx(0.2)  # 0.2 of the first second, 0.1 of the last half
    assert service.figures(passes, is_always_ready=False).overhead is None
