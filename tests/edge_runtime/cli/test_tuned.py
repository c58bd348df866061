"""A setting that `tune` kept, in use: by every command that answers, told where one looks, and never in the way."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cloud_verifier.target import open_verifier
from edge_runtime.knobs import Knobs
from edge_runtime.runtime import Runtime
from edge_runtime.session import Session
from edge_runtime.tuning.compare import Comparison
from edge_runtime.tuning.stored import Tuned, machine, save
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.engines import machine as engine_machine
from tests.edge_runtime.api.tiny import write_store
from tests.edge_runtime.cli import in_process
from tests.serving import serving

ASK = ("generate", "hello hello hello", "--target", "tiny", "--max-tokens", "16", "--context", "1024", "--no-journal")
KNOBS = ("max_drafts", "max_ahead", "patience_ms")
Run = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(autouse=True)
def _use_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_HOME", str(home))
    monkeypatch.setattr(engine_machine, "num_physical_cores", lambda: 1)  # tiny models gain nothing by a second thread


@pytest.fixture
def tuned() -> Tuned:
    """One that drafts three at a time and is sure of itself."""
    fingerprint = catalog.find("tiny").manifest.fingerprint
    drafter = catalog.find("other").manifest.fingerprint
    knobs = Knobs("lookup+other", 1, 1, max_drafts=3, min_reach=0.2)
    tuned = Tuned("mine", fingerprint, machine(), "latency", "", knobs, drafter, Comparison(ratio=0.8))
    save(tuned)
    return tuned


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What sessions were made with: the cap, the drafter's name and the pace's cut."""
    made: list[dict[str, object]] = []
    begin = Session.__init__

    def heard(self: Session, link: object, drafter: object, pace: object, *args: object, **settings: object) -> None:
        name, cut = getattr(drafter, "name", None), getattr(pace, "_min_reach", None)
        made.append({"drafter": name, "cut": cut, **{key: settings[key] for key in KNOBS}})
        begin(self, link, drafter, pace, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "__init__", heard)
    return made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str, stdin: str = "") -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        assert in_process.run([*words], monkeypatch) == 0
        return capsys.readouterr()

    return run


IN_USE = {"drafter": "lookup+other", "cut": 0.2, "max_drafts": 3, "max_ahead": 0, "patience_ms": 0}
BY_DEFAULT = {"drafter": "lookup", "cut": 0.0, "max_drafts": 19, "max_ahead": 0, "patience_ms": 0}


def test_generate_uses_it_says_so_and_answers_the_same(tuned: Tuned, used: list[object], run: Run) -> None:
    with_it = json.loads(run(*ASK, "--json")[0])
    without = json.loads(run(*ASK, "--json", "--tuned", "off")[0])
    assert used == [IN_USE, BY_DEFAULT]
    assert (with_it["tuned"], without["tuned"]) == ("mine", None)
    assert with_it["token_ids"] == without["token_ids"]
    assert "tuned: mine" in run(*ASK, "--tuned", "mine")[1]


def test_chat_uses_it(tuned: Tuned, used: list[object], run: Run) -> None:
    run("chat", "--target", "tiny", "--no-journal", "--context", "1024", "--max-tokens", "4", stdin="hello\n")
    assert used == [IN_USE]


def test_what_is_chosen_by_hand_comes_first(tuned: Tuned, used: list[object], run: Run) -> None:
    run(*ASK, "--drafter", "lookup")
    assert used == [BY_DEFAULT]
    assert "mine is not used beside --drafter" in run(*ASK, "--threads", "1", "--tuned", "mine")[1]


@pytest.mark.parametrize("how", ["auto", "mine"])
def test_a_damaged_one_is_a_line_and_the_answer_comes(how: str, tuned: Tuned, used: list[object], run: Run) -> None:
    save(tuned).write_text('{"name": ')
    told = run(*ASK, "--json", "--tuned", how)
    assert json.loads(told[0])["tuned"] is None
    assert told[1].count("the tuned setting mine cannot be read") == 1
    assert used == [BY_DEFAULT]


def test_another_machines_is_passed_over(tuned: Tuned, used: list[object], run: Run) -> None:
    save(msgspec.structs.replace(tuned, machine="another, 64 cores"))
    assert "tuned" not in run(*ASK)[1]
    assert used == [BY_DEFAULT]


def test_the_doctor_tells_of_it(tuned: Tuned, run: Run) -> None:
    asked = ("doctor", "--quick", "--target", "tiny", "--json")
    findings = {finding["name"]: finding for finding in json.loads(run(*asked)[0])["findings"]}
    assert "mine is used: drafter lookup+other, 20% less latency" in findings["tuned"]["detail"]
    assert examined(run, *asked)[1]["drafter"] == "lookup+other"
    save(tuned).write_text("{")
    findings = {finding["name"]: finding for finding in json.loads(run(*asked)[0])["findings"]}
    assert findings["tuned"]["state"] == "note"
    assert findings["tuned"]["fix"] == "outrider tune"


def examined(run: Run, *words: str) -> tuple[str, dict[str, object]]:
    """What the doctor says of tuning, and its choice."""
    told = json.loads(run(*words)[0])
    [detail] = (finding["detail"] for finding in told["findings"] if finding["name"] == "tuned")
    return detail, told["choice"]


@pytest.mark.parametrize(
    ("setting", "chosen"),
    [
        (("tuned", "off"), {"drafter": "lookup"}),
        (("threads", "3"), {"drafter": "lookup", "num_threads": 3}),
        (("drafter", "other"), {"drafter": "other"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_the_doctor_knows_when_it_is_not_used(
    setting: tuple[str, str], chosen: dict[str, object], tuned: Tuned, run: Run
) -> None:
    run("config", "set", *setting)
    detail, choice = examined(run, "doctor", "--quick", "--target", "tiny", "--json")
    assert "mine" not in detail
    assert chosen.items() <= choice.items()


def test_over_a_link_look_ahead_is_what_was_found(tuned: Tuned, used: list[object], run: Run) -> None:
    local = open_verifier(catalog.find("tiny"), EngineSettings(num_threads=1, max_context=1024))
    with serving(local.loop) as url:
        save(msgspec.structs.replace(tuned, verifier=url, knobs=Knobs("other", 1, max_ahead=8, patience_ms=50)))
        found = json.loads(run(*ASK, "--json", "--verifier", url)[0])
    local.close()
    assert found["tuned"] == "mine"
    assert used == [{"drafter": "other", "cut": 0.0, "max_drafts": 19, "max_ahead": 8, "patience_ms": 50}]


def test_an_app_hands_knobs_over_itself(used: list[object]) -> None:
    settings = EngineSettings(num_threads=1, max_context=1024)
    with Runtime.local("tiny", settings=settings, knobs=Knobs("lookup", max_ahead=16, min_reach=0.05)) as runtime:
        beside = [*runtime.answer("hello hello hello", max_tokens=8)]
    with Runtime.local("tiny", settings=settings) as runtime:
        in_turns = [*runtime.answer("hello hello hello", max_tokens=8)]
    assert used[0] == {"drafter": "lookup", "cut": 0.05, "max_drafts": 19, "max_ahead": 16, "patience_ms": 0}
    assert [piece.text for piece in beside[:-1]] == [piece.text for piece in in_turns[:-1]]  # type: ignore[union-attr]
