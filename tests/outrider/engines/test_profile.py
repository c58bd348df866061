"""The profile of engines whose costs and bits are planted must say what was planted, and never claim more."""

from pathlib import Path

import msgspec
import pytest

from outrider.engines import EngineSettings
from outrider.engines import numerics_probe as probe
from outrider.engines.numerics_probe import SIZES
from outrider.engines.profile import choose_class, load_or_measure, measure, profile_key
from outrider.errors import InvalidParameter
from outrider.manifest import Profile, load_folder
from tests.outrider.engines.planted import PlantedEngine
from tests.outrider.engines.tiny import tiny_manifest

SMALL = [size for size in SIZES if size < 64]
LARGE = [size for size in SIZES if size >= 64]


def classes(engine: PlantedEngine) -> list[list[int]]:
    return measure(engine, repeats=1, clock=engine.clock).classes


def test_planted_costs_are_recovered_and_filled_in() -> None:
    engine = PlantedEngine(cost_ms=lambda size: 10.0 + 3 * size if size < 8 else 20.0 + 5 * size)
    profile = measure(engine, context=100, repeats=3, clock=engine.clock)
    assert sorted(profile.cost_ms) == list(range(1, 33))
    assert profile.context == 100
    assert profile.cost_ms[1] == pytest.approx(13)
    assert profile.cost_ms[7] == pytest.approx(31)
    assert profile.cost_ms[10] == pytest.approx(70)  # between 8 and 12
    assert profile.cost_ms[32] == pytest.approx(180)


def test_a_slow_moment_does_not_reach_the_median() -> None:
    engine = PlantedEngine()
    engine.cost_ms = lambda size: 1000.0 if engine.num_passes % 37 == 0 else float(size)
    profile = measure(engine, repeats=5, clock=engine.clock)
    assert profile.cost_ms[4] == pytest.approx(4)
    assert max(profile.cost_ms.values()) == pytest.approx(32)


def test_an_engine_without_differences_is_one_class() -> None:
    assert classes(PlantedEngine()) == [list(SIZES)]


def test_sizes_whose_logits_differ_are_apart() -> None:
    engine = PlantedEngine(logits_label=lambda size: (size > 1) + (size >= 64))
    assert classes(engine) == [[1], [size for size in SMALL if size > 1], LARGE]


def test_sizes_whose_caches_differ_are_apart() -> None:
    engine = PlantedEngine(cache_label=lambda size: size >= 64)
    assert classes(engine) == [SMALL, LARGE]


def test_a_cache_that_differs_in_single_passes_only_is_seen() -> None:
    # 64 and 128 have one pass each: no later row of theirs reads the cells, the probe does.
    engine = PlantedEngine(cache_label=lambda size: size == 128)
    assert classes(engine) == [[size for size in SIZES if size != 128], [128]]


def test_a_size_whose_rows_depend_on_their_place_has_no_class() -> None:
    # Rows in groups of four by one kernel, what is left over by another: as rearranged weights are multiplied.
    engine = PlantedEngine(place_label=lambda size, place: place < size // 4 * 4)
    assert classes(engine) == [[1, 2, 3], [4, 8, 12, 16, 20, 24, 32, 48, 64, 128]]


def test_a_size_whose_rows_depend_on_later_tokens_has_no_class() -> None:
    # As with activations quantized by the range of the whole chunk.
    assert classes(PlantedEngine(sees_later_tokens=True)) == [[1]]


def test_sizes_beyond_the_engines_are_not_tried() -> None:
    assert classes(PlantedEngine(max_chunk=16)) == [[1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16]]
    assert max(map(max, classes(PlantedEngine(max_context=200)))) < 64


@pytest.mark.parametrize("evidence", ["_agrees_with_itself", "_agree"])
def test_without_its_evidence_a_wrong_class_would_be_claimed(monkeypatch: pytest.MonkeyPatch, evidence: str) -> None:
    plants = {
        "_agrees_with_itself": PlantedEngine(sees_later_tokens=True),
        "_agree": PlantedEngine(cache_label=lambda size: size >= 64),
    }
    right = classes(plants[evidence])
    monkeypatch.setattr(probe, evidence, lambda *_: True)
    assert classes(plants[evidence]) != right


def test_nothing_is_claimed_of_an_engine_that_cannot_truncate() -> None:
    engine = PlantedEngine(can_truncate=False, cost_ms=lambda size: 2.0 * size)
    profile = measure(engine, repeats=1, clock=engine.clock)
    assert profile.classes == []
    assert choose_class(profile) == []
    assert profile.cost_ms[3] == pytest.approx(6)


@pytest.mark.parametrize(
    ("plants", "expected"),
    [
        ({}, True),
        ({"minds_company": True}, False),
        ({"minds_company": True, "max_batch": 1}, True),
        ({"logits_label": lambda size: size > 1}, False),  # a chunk of one beside another is still a chunk of one
        ({"cache_label": lambda size: size > 1}, False),
    ],
    ids=["apart", "company matters", "no company", "logits of ones differ", "cells of ones differ"],
)
def test_whether_sequences_keep_their_bits_in_company(plants: dict[str, object], expected: bool) -> None:
    # Steps of one are dear, so that the class of the larger sizes is chosen where there are two.
    fields = {"max_batch": 4, "max_sequences": 4, "cost_ms": lambda size: 100.0 if size == 1 else size, **plants}
    engine = PlantedEngine(**fields)
    assert measure(engine, repeats=1, clock=engine.clock).batch_exact is expected
    assert engine.cells == {}


def planned(cost_ms: dict[int, float], found: list[list[int]]) -> Profile:
    return Profile("engine", "machine", 1, 256, cost_ms, found, True)


def test_the_class_chosen_costs_least_for_a_step_and_a_check() -> None:
    cost_ms = {size: 30.0 + 4 * size for size in range(1, 33)}
    assert choose_class(planned(cost_ms, [[1], [4, 2, 8], [16, 32]])) == [2, 4, 8]
    # Checking by single steps would do if a pass cost nothing but its tokens.
    cost_ms = {size: float(size) for size in range(1, 33)}
    assert choose_class(planned(cost_ms, [[64, 128], [1], [8, 16]])) == [1]
    # 3 + 3 + 2 padded to 3, against one pass of 8.
    cost_ms |= {3: 3.0, 1: 3.0, 8: 9.0}
    assert choose_class(planned(cost_ms, [[3], [8]])) == [3]
    assert choose_class(planned(cost_ms, [])) == []


def test_measured_once_then_read(tmp_path: Path) -> None:
    folder = tiny_manifest(tmp_path, "gguf", "model.gguf")
    engine, settings = PlantedEngine(), EngineSettings(num_threads=1)
    told: list[tuple[str, int, int]] = []
    first = load_or_measure(folder, engine, settings, lambda *step: told.append(step))
    passes = engine.num_passes
    assert load_or_measure(folder, engine, settings) == first
    assert engine.num_passes == passes
    assert load_folder(tmp_path).manifest.profiles == {profile_key(engine, settings): first}
    assert {stage for stage, _, _ in told} == {"timing passes", "comparing bits"}
    assert all(0 <= done <= total for _, done, total in told)

    load_or_measure(folder, engine, settings, force=True)
    assert engine.num_passes == 2 * passes
    load_or_measure(folder, engine, EngineSettings(num_threads=2))
    load_or_measure(folder, PlantedEngine(max_batch=2, max_sequences=2), settings)
    assert len(load_folder(tmp_path).manifest.profiles) == 3


def test_what_another_process_stored_meanwhile_is_kept(tmp_path: Path) -> None:
    folder = tiny_manifest(tmp_path, "gguf", "model.gguf")
    engine = PlantedEngine()
    other = load_or_measure(folder, PlantedEngine(name="other"), EngineSettings(num_threads=1))
    load_or_measure(folder, engine, EngineSettings(num_threads=1))  # `folder` was loaded before either
    profiles = load_folder(tmp_path).manifest.profiles
    assert len(profiles) == 2
    assert other in profiles.values()
    assert msgspec.json.decode(msgspec.json.encode(other), type=Profile) == other


def test_a_context_too_small_to_measure_in() -> None:
    with pytest.raises(InvalidParameter, match="too small"):
        measure(PlantedEngine(max_context=64))


@pytest.mark.weights
def test_real_weights_the_class_holds_every_size_from_two() -> None:
    from outrider import catalog
    from outrider.engines import open_engine

    settings = EngineSettings(num_threads=1, max_context=1024)
    engine = open_engine(catalog.find("smollm2-135m-instruct"), settings)
    profile = measure(engine, repeats=1, settings=settings)
    engine.close()
    assert choose_class(profile) in profile.classes
    assert [size for size in SIZES if size > 1] in [[size for size in found if size > 1] for found in profile.classes]
