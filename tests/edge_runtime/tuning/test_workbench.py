"""Settings in force on tiny real models: all give the target's answer, none knows it beforehand, costs are counted."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edge_runtime import parts
from edge_runtime.drafters.model import ModelDrafter
from edge_runtime.knobs import Knobs, pace_of
from edge_runtime.links import WebSocketLink
from edge_runtime.parts import open_drafter
from edge_runtime.tuning import space, workbench
from edge_runtime.tuning.prompts import Prompt
from edge_runtime.tuning.space import link_space, pair_space
from edge_runtime.tuning.workbench import Workbench
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.manifest import ModelFolder
from outrider.worth import PassCost
from tests.drafting import EagerPace
from tests.edge_runtime.api.tiny import write_store
from tests.serving import serving

SETTINGS = EngineSettings(num_threads=1, max_context=1024)
HELLO, BYE = Prompt("talk", "hello hello"), Prompt("talk", "bye")
KNOBS = [
    Knobs("none"),
    Knobs("lookup", max_drafts=3),
    Knobs("other"),
    Knobs("lookup+other", min_reach=0.5),
    Knobs("lookup+other", max_ahead=16),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(autouse=True)
def _use_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_HOME", str(home))


@pytest.fixture
def tiny(home: Path) -> ModelFolder:
    return catalog.find("tiny")


@pytest.fixture
def bench(tiny: ModelFolder) -> Iterator[Workbench]:
    with Workbench(tiny, SETTINGS, 12) as bench:
        yield bench


def test_every_setting_gives_the_same_answer_and_has_its_cost(bench: Workbench) -> None:
    samples = {knobs: bench.begin(knobs)(HELLO) for knobs in KNOBS}
    answers = {tuple(sample.token_ids) for sample in samples.values()}
    assert len(answers) == 1
    assert len(answers.pop()) == 12
    assert all(min(sample.elapsed_ms, sample.verifier_ms, sample.energy) > 0 for sample in samples.values())


def test_the_verifiers_cost_is_of_its_passes_after_the_first(bench: Workbench) -> None:
    verifier, _ = bench._parts(Knobs("none"))
    assert verifier is not None
    passes = []
    verifier.loop.verifier.on_pass.append(passes.append)
    for knobs in KNOBS:  # without a device's drafts, or beside them, the verifier makes its own
        passes.clear()
        sample = bench.begin(knobs)(HELLO)
        rows = [one.num_rows for one in passes if one.emitted][1:]
        assert sample.verifier_ms == pytest.approx(sum(PassCost(verifier.pass_ms)(count) for count in rows))


def test_a_drafter_does_not_know_an_answer_beforehand(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    run = ModelDrafter._run

    def counted(self: ModelDrafter, held: int, missing: Sequence[int], *, num_logits: int) -> object:
        passes.append(num_logits)
        return run(self, held, missing, num_logits=num_logits)

    monkeypatch.setattr(ModelDrafter, "_run", counted)
    monkeypatch.setattr(workbench, "pace_of", lambda knobs, pass_ms: EagerPace())
    counts = []
    for _ in range(3):
        passes.clear()
        bench.begin(Knobs("other", max_drafts=3))(HELLO)
        counts.append(sum(passes))
    assert min(counts) > 0
    assert counts[1] == counts[0] == counts[2]


def test_a_model_whose_name_begins_like_the_text_is_a_model(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home, tmp_path / "store")
    shutil.copytree(home / "other", tmp_path / "store" / "lookup-other")
    monkeypatch.setenv("OUTRIDER_HOME", str(tmp_path / "store"))
    with Workbench(catalog.find("tiny"), SETTINGS, 12) as bench:
        _, drafter = bench._parts(Knobs("lookup-other"))
    assert isinstance(drafter, ModelDrafter)


def test_each_setting_has_its_own_guard(bench: Workbench) -> None:
    bench.begin(KNOBS[1])(HELLO)
    ask = bench.begin(KNOBS[0])
    verifier, _ = bench._parts(KNOBS[0])
    assert verifier is not None
    ask(BYE)
    assert len(verifier.loop.verifier.guards) == 2


def test_engines_stay_open_until_memory_is_short(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.begin(Knobs("other"))
    opened = dict(bench._open)
    bench.begin(Knobs("lookup+other"))
    assert bench._open == opened
    monkeypatch.setattr(workbench, "available_bytes", lambda: 0)
    bench.begin(Knobs("plain"))
    assert {Path(path).name for path, _ in bench._open} == {"tiny", "plain"}
    assert bench.begin(Knobs("other"))(HELLO).token_ids == bench.begin(Knobs("none"))(HELLO).token_ids


def test_over_a_link_the_same_answer(bench: Workbench) -> None:
    here = bench.begin(Knobs("none"))(HELLO)
    verifier, _ = bench._parts(Knobs("none"))
    assert verifier is not None
    with (
        serving(verifier.loop) as url,
        Workbench(catalog.find("other"), SETTINGS, 12, open_link=lambda: WebSocketLink(url)) as linked,
    ):
        for knobs in (Knobs("none", max_ahead=64), Knobs("lookup+other", max_ahead=8, patience_ms=5)):
            sample = linked.begin(knobs)(HELLO)
            assert sample.token_ids == here.token_ids
            assert sample.verifier_ms >= 1  # in plain passes


def test_the_space_of_a_pair(tiny: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "num_physical_cores", lambda: 4)
    assert pair_space(tiny).drafters == ["none", "lookup"]  # the other models are no smaller than the target
    monkeypatch.setattr(space, "LARGEST_SHARE", 2.0)
    found = pair_space(tiny)
    assert found.defaults == Knobs("lookup", 4, 4)
    assert found.drafters[2:] == ["lookup+other", "lookup+plain", "other", "plain"]
    assert found.drafter_threads == [4, 2, 1]
    assert set(found.verifier_threads) <= {4, 1}  # with a profile: this module's is of one thread
    assert found.first()[0] == found.defaults
    assert {knobs.drafter for knobs in found.first()} == set(found.drafters)


def test_the_default_drafter_is_in_the_space_even_where_it_is_as_large_as_the_target(
    tiny: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "DEFAULT_DRAFTER", "other")
    found = pair_space(tiny)
    assert found.defaults.drafter == "lookup+other"
    assert found.drafters == ["none", "lookup", "lookup+other"]


def test_the_space_over_a_link(tiny: ModelFolder) -> None:
    found = link_space(catalog.find("other"), tiny.manifest.fingerprint)
    assert "tiny" not in found.drafters  # the target itself
    assert "lookup+other" in found.drafters
    assert found.defaults.max_ahead == found.max_ahead[0] == 64
    assert found.defaults.patience_ms == found.patience_ms[0] == 0


class Fixed:
    """What Optuna's trial does, with the first value of each."""

    def __init__(self, **values: object) -> None:
        self.values, self.asked = values, []

    def suggest_categorical(self, name: str, values: list[object]) -> object:
        self.asked.append(name)
        return self.values.get(name, values[0])

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return int(self.suggest_categorical(name, [low]))

    def suggest_float(self, name: str, low: float, high: float, *, step: float) -> float:
        return float(self.suggest_categorical(name, [low]))


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        ({"drafter": "none"}, ["drafter"]),
        ({"drafter": "lookup"}, ["drafter", "max_drafts", "min_reach"]),
        ({"drafter": "m"}, ["drafter", "drafter_threads", "max_drafts", "min_reach"]),
        (
            {"drafter": "m", "drafter_threads": 1},
            ["drafter", "drafter_threads", "max_ahead", "max_drafts", "min_reach"],
        ),
        (
            {"drafter": "m", "drafter_threads": 1, "max_ahead": 16},
            ["drafter", "drafter_threads", "max_ahead", "min_reach"],
        ),
    ],
)
def test_a_knob_without_effect_is_not_searched(values: dict[str, object], asked: list[str]) -> None:
    """Side by side only where the threads of both fit the cores."""
    pair = space.Space(Knobs("none", 2, 2), ["none", "lookup", "m"], [2, 1], [1], [0, 16], 2)
    trial = Fixed(**values)
    pair.suggest(trial)
    assert trial.asked == asked


def test_a_model_after_the_text_is_a_drafter_for_everybody(tiny: ModelFolder) -> None:
    drafter = open_drafter("lookup+other", tiny, SETTINGS)
    assert drafter is not None
    assert drafter.name == "lookup+other"
    drafter.close()


def test_no_guess_is_made_below_the_chance_that_was_set() -> None:
    for max_ahead in (0, 8):
        pace = pace_of(Knobs(max_ahead=max_ahead, min_reach=0.6), {1: 10.0, 2: 10.1, 3: 10.2, 4: 10.3})
        pace.begin([])
        assert pace.wants_another("m", 0.9, 0)
        assert not pace.wants_another("m", 0.7, 0)  # 0.75 of that is what an untried drafter is right
        assert pace.num_worthwhile("m", [0.9, 0.9, 0.1]) == 2
        assert pace.num_worthwhile("m", [0.5]) == 0
