import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import report
from export.report import compare, divergence, tokens_per_pass
from outrider.engines import Chunk
from outrider.errors import BadLogits

KEPT = np.array([0, 2], np.int32)


def log(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities, np.float32)) + 3


def test_divergence_is_that_of_the_distributions() -> None:
    kl, mass = divergence(log(0.5, 0.25, 0.25), log(0.25, 0.5, 0.25), None)
    assert kl == pytest.approx(0.5 * math.log(2) + 0.25 * math.log(0.5), abs=1e-6)
    assert mass == pytest.approx(1)
    assert divergence(log(0.5, 0.5), log(0.5, 0.5), None)[0] == pytest.approx(0, abs=1e-9)


def test_a_trimmed_vocabulary_counts_its_own_ids_and_says_what_it_lacks() -> None:
    kl, mass = divergence(log(0.6, 0.2, 0.2), log(0.5, 0.5), KEPT)
    assert mass == pytest.approx(0.8)
    assert kl == pytest.approx(0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5), abs=1e-6)


def test_padding_columns_of_the_wider_model_do_not_count() -> None:
    kl, mass = divergence(log(0.5, 0.5), np.append(log(0.5, 0.5), 9).astype(np.float32), None)
    assert kl == pytest.approx(0, abs=1e-6)
    assert mass == pytest.approx(1)


def test_nan_is_an_error() -> None:
    with pytest.raises(BadLogits):
        divergence(log(0.5, 0.5), np.array([0, np.nan], np.float32), None)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 9))
@settings(max_examples=40)
def test_tokens_per_pass_is_what_a_verifier_would_see(is_equal: list[bool], num_drafts: int) -> None:
    passes = position = 0
    while position < len(is_equal):  # one token after the other, as a verifier compares them
        passes += 1
        for _ in range(num_drafts):
            if position < len(is_equal) and is_equal[position]:
                position += 1
            else:
                break
        position += 1
    assert tokens_per_pass(is_equal, num_drafts) == len(is_equal) / passes


class Counting:
    """After token t it says t + 1 (mod 7), except after the tokens in `wrong`, where it says 0."""

    def __init__(self, wrong: Sequence[int] = (), id_map: np.ndarray | None = None) -> None:
        self.wrong, self.id_map, self.held = wrong, id_map, 0
        self.read: list[int] = []

    def allocate(self) -> int:
        self.held += 1
        return 0

    def release(self, sequence: int) -> None:
        self.held -= 1

    def extend(self, chunks: Sequence[Chunk]) -> list[np.ndarray]:
        (chunk,) = chunks
        self.read += chunk.token_ids
        rows = np.zeros((len(chunk.token_ids), 7), np.float32)
        for row, token_id in zip(rows, chunk.token_ids, strict=True):
            row[0 if token_id in self.wrong else (token_id + 1) % 7] = 4
        columns = slice(None) if self.id_map is None else self.id_map
        return [rows[len(rows) - chunk.num_logits :, columns]]


def test_both_read_the_same_text_and_each_position_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "NUM_TOKENS", 20)
    monkeypatch.setattr(report, "CHUNK_ROWS", 3)
    engine, reference = Counting(wrong=[3]), Counting()
    found = compare(engine, reference, [5, 6], stop_ids=[])
    text = [(position) % 7 for position in range(20)]
    assert reference.read == engine.read == [5, 6, *text[:-1]]
    assert found.is_equal == [token_id != 4 for token_id in text]
    assert [kl > 0.1 for kl in found.divergences] == [token_id == 4 for token_id in text]
    assert engine.held == reference.held == 0


def test_a_text_ends_at_its_stop_token() -> None:
    found = compare(Counting(), Counting(), [1], stop_ids=[5])
    assert found.is_equal == [True] * 4


def test_a_trimmed_export_is_compared_by_token_not_by_column() -> None:
    ids = np.array([0, 1, 3, 4, 5, 6], np.int32)
    found = compare(Counting(id_map=ids), Counting(), [2], stop_ids=[2])
    assert found.is_equal == [True] * 6 + [False]
    assert found.masses[0] > 0.9 > 0.2 > found.masses[-1]
