"""What is kept of a measurement, where it was made, which prompts were asked: pieces that measure nothing."""

import dataclasses
import json
from pathlib import Path

import msgspec
import pytest

from benchmarks import environment
from benchmarks.options import ExportOptions, LinkOptions, PairOptions
from benchmarks.order import rotated
from benchmarks.prompts import KINDS, Selection, held_out, read_prompts, select
from benchmarks.record import Answer, Missing, Published, Result, Run, Way, load, save
from benchmarks.tables import lines
from edge_runtime.report import Report
from outrider.errors import InvalidParameter

HERE = environment.Environment("a processor", 2, 2, 4.0, "a system", "3.11", {"numpy": "2"}, "abc", "2025-01-01", 0.1)


def answer(token_ids: list[int], seconds: float = 1.0) -> Answer:
    return Answer(token_ids=token_ids, seconds=seconds, first_s=0.5, passes=2, drafted=4, accepted=3)


def result(**more: object) -> Result:
    """Two prompts, three ways; ours twice as fast, a peer that says something else."""
    ways = [
        Way(name="target alone", role="alone"),
        Way(name="pair", role="ours", equals="target alone"),
        Way(name="peer", role="peer", note="other weights"),
    ]
    runs = [
        Run.of(
            answer([1, 2, number], 1 / speed), "code", f"code/{number}", way, setting="deep" if way == "peer" else ""
        )
        for number in (5, 6)
        for way, speed in (("target alone", 1.0 + number), ("pair", 2.0 + 2 * number), ("peer", 1.0))
    ]
    fields = {
        "suite": "pair",
        "command": ["outrider", "bench", "pair"],
        "environment": HERE,
        "settings": {"max_tokens": 3},
    }
    return Result(**fields | {"ways": ways, "runs": runs} | more)  # type: ignore[arg-type]


def test_a_result_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    whole = result(
        missing=[Missing("other", "not installed")],
        published=[Published("far", "9x", "elsewhere", "a paper")],
        profiles={"m": {1: 2.0, 8: 9.5}},
    )
    save(whole, tmp_path / "r.json")
    assert load(tmp_path / "r.json") == whole
    assert list(lines(load(tmp_path / "r.json"))) == list(lines(whole))
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["schema"] == 1
    assert {"processor", "threads", "versions", "commit", "date", "load"} <= set(told["environment"])
    run = told["runs"][1]
    assert (run["kind"], run["prompt"], run["way"], run["num_tokens"]) == ("code", "code/5", "pair", 3)
    assert (run["passes"], run["drafted"], run["accepted"]) == (2, 4, 3)
    assert run["digest"] == told["runs"][0]["digest"] != told["runs"][3]["digest"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no benchmark's result"),
        ("[1]", "no benchmark's result"),
        ('{"schema": 2}', "version 2"),
        ('{"schema": 1, "suite": "pair"}', "no benchmark's result"),
        ("{" * 100_000, "no benchmark's result"),
    ],
)
def test_what_is_no_result_is_refused_in_a_sentence(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text(text)
    with pytest.raises(InvalidParameter, match=words):
        load(file)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="cannot be read"):
        load(tmp_path / "none.json")
    with pytest.raises(InvalidParameter, match="cannot be written"):
        save(result(), tmp_path / "no folder" / "r.json")


def test_speeds_are_compared_prompt_by_prompt() -> None:
    whole = result()
    assert whole.ratios("pair", "target alone", kind="code") == pytest.approx([2.0, 2.0])
    assert whole.ratios("peer", "target alone") == pytest.approx([1 / 6, 1 / 7])
    text = "\n".join(lines(whole))
    assert "| pair | 2.00x | 2.00x (2.00-2.00) | 1.5 | 75% |" in text
    assert "- peer: other weights; its best setting: deep on code" in text
    assert "in all 2 runs of ours: yes." in text


def test_all_prompts_together_count_by_their_time() -> None:
    """Four times as fast on one prompt and half as fast on the other takes longer than nothing gained on both."""
    runs = [
        Run.of(answer([1, 2, 3], seconds), "code", prompt, way)
        for prompt, way, seconds in [("a", "slow", 4.0), ("b", "slow", 4.0), ("a", "new", 1.0), ("b", "new", 8.0)]
    ]
    whole = result(runs=[*runs, Run.of(answer([1], 0.0), "code", "c", "new")])
    assert whole.ratios("new", "slow") == [4.0, 0.5]
    assert whole.together("new", "slow", kind="code") == pytest.approx(8 / 9)
    assert whole.together("new", "nobody") is None


def test_other_tokens_than_the_target_s_are_told() -> None:
    wrong = result()
    wrong.runs[4] = Run.of(answer([1, 2, 9]), "code", "code/6", "pair")
    assert not wrong.is_exact
    assert wrong.untrue() == ["pair: code, code/6"]
    text = "\n".join(lines(wrong))
    assert "in all 2 runs of ours: NO." in text
    assert "Other tokens: pair: code, code/6." in text
    assert result().is_exact


def test_a_machine_that_is_not_quiet_is_told() -> None:
    assert result().disturbed() == []
    busy = msgspec.structs.replace(HERE, load=1.5)
    assert result(environment=busy).disturbed() == ["load 1.5 before it began"]
    steady = [Run.of(answer([1, 2, 3], seconds), "code", "warm-up", "target alone") for seconds in (1.0, 1.1)]
    assert result(warm_ups=steady).disturbed() == []
    shaky = [*steady, Run.of(answer([1, 2, 3], 2.0), "code", "warm-up", "target alone")]
    told = result(warm_ups=shaky)
    assert told.disturbed() == ["target alone, code warmed up at 1.0 to 2.0 tokens/s"]
    assert "Not a quiet machine: target alone, code" in "\n".join(lines(told))
    learning = [Run.of(answer([1, 2, 3], seconds), "code", "warm-up", "pair") for seconds in (1.0, 3.0)]
    assert result(warm_ups=learning).disturbed() == []


def test_an_answer_is_read_from_a_report() -> None:
    report = Report(num_tokens=5, num_passes=2, num_drafted=4, num_accepted=3, first_token_ms=250, total_ms=1250)
    run = Run.of(Answer.of([1, 2, 3, 4, 5], report), "code", "code/1", "pair")
    assert (run.tokens_per_s, run.tokens_per_pass) == (4.0, 2.5)
    assert run.tokens_per_s == report.tokens_per_s
    assert Run.of(Answer.of([1], report), "code", "code/1", "pair").tokens_per_s == 0.0


def test_the_environment_names_what_speed_depends_on() -> None:
    here = environment.current(1)
    assert here.threads == 1
    assert here.processor
    assert {"outrider", "numpy", "tokenizers"} <= set(here.versions)
    assert here == msgspec.json.decode(msgspec.json.encode(here), type=environment.Environment)


def test_every_way_comes_at_every_place() -> None:
    orders = [rotated("abcd", number) for number in range(4)]
    assert all(sorted(order) == list("abcd") for order in orders)
    assert all(sorted(column) == list("abcd") for column in zip(*orders, strict=True))
    assert rotated([], 3) == []


# Prompts


def test_prompts_of_our_own_are_several_of_each_kind_and_none_is_twice() -> None:
    found = select(Selection(KINDS, count=5))
    assert list(found) == list(KINDS)
    assert all(len(prompts) == 5 and {prompt.kind for prompt in prompts} == {kind} for kind, prompts in found.items())
    every = [prompt for prompts in found.values() for prompt in prompts] + list(held_out(Selection(KINDS)).values())
    assert len({prompt.id for prompt in every}) == len({prompt.text for prompt in every}) == 30
    assert select(Selection(KINDS, count=5)) == found
    assert found["code"][0].id == "HumanEval/0"


@pytest.mark.parametrize("options", [PairOptions(), LinkOptions(), ExportOptions()])
def test_quick_is_one_prompt_of_each_kind(options: PairOptions) -> None:
    quick = options.quick()
    assert quick.prompts == dataclasses.replace(options.prompts, count=1)
    assert (quick.max_tokens, quick.is_quick) == (24, True)


def test_prompts_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "a", "kind": "law"}\n\n{"prompt": "b", "id": 7}\n{"prompt": "c", "kind": "law"}\n')
    assert [(prompt.id, prompt.kind, prompt.text) for prompt in read_prompts(file)] == [
        ("mine/1", "law", "a"),
        ("mine/3", "own", "b"),
        ("mine/4", "law", "c"),
    ]
    found = select(Selection(count=9, file=file))
    assert {kind: [prompt.text for prompt in prompts] for kind, prompts in found.items()} == {
        "law": ["a"],
        "own": ["b"],
    }
    assert held_out(Selection(count=9, file=file))["law"].text == "c"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"prompt": "a"}\n{"text": "b"}\n', "line 2 of"),
        (b"hello\n", "line 1 of"),
        (b'"hello"\n', "line 1 of"),
        (b'{"prompt": 7}\n', "line 1 of"),
        (b'{"prompt": "\xff"}\n', "line 1 of"),
        (b'{"prompt": "  "}\n', "an empty prompt"),
        (b'{"prompt": "a", "kind": ""}\n', "an empty prompt or kind"),
        (b"[" * 50_000, "line 1 of"),
        (b"\n\n", "holds no prompts"),
    ],
)
def test_lines_that_are_no_prompts_are_refused_by_number(data: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(data)
    with pytest.raises(InvalidParameter, match=words) as refused:
        read_prompts(file)
    assert refused.value.exit_status == 2
    assert "\n" not in str(refused.value)


def test_a_selection_that_cannot_be_met(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="no prompts of kind 'poems'"):
        select(Selection(("poems",)))
    with pytest.raises(InvalidParameter, match="0 prompts of each kind"):
        select(Selection(count=0))
    with pytest.raises(InvalidParameter, match="cannot be read"):
        select(Selection(file=tmp_path))
