"""`outrider bench` as a person meets it: every suite run once, small, on tiny models or on a target that counts.

What a run prints, keeps and draws must agree: the tables are made again from the file, and so are the figures.
"""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import pair, pinned
from benchmarks.options import ExportOptions, PairOptions
from benchmarks.peers.base import OpenPeer, Peer, PeerAnswer, PeerFailed, Published
from benchmarks.plots import FIGURES
from benchmarks.prompts import Selection
from benchmarks.record import Result, load, save
from benchmarks.tables import SUITES, lines
from benchmarks.ways import IN_CLASS, greedy_alone, peer_ways
from edge_runtime.cli import main, suites
from outrider import catalog
from outrider.engines import EngineSettings, open_engine
from outrider.errors import InvalidParameter
from outrider.manifest import Source, file_sha256
from tests.export.models import write_gguf
from tests.outrider.test_infill import MARKS
from tests.warm import Forked

ARGUMENTS = {
    "pair": "--target tiny --drafter lookup --drafter same --also other --peers none --threads 1",
    "link": "--target counting",
    "service": "--target counting",
    "export": "--target tiny --drafter same --drafter other --kinds code,chat --threads 1",
    "wire": "",
    "typing": "--target tiny --drafter lookup --threads 1",
    "fleet": "--engine core --kinds code",
}

# Bars; two panels; logarithmic axes. The others' figures are of the same kinds.
DRAWN = ("pair", "wire", "fleet")


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


def bench(*words: str) -> Done:
    """The command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["outrider", "bench", *words])
        patch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            main()
    return Done(int(stopped.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny`, the same weights under another name, and others of the same vocabulary."""
    home = tmp_path_factory.mktemp("store")
    for name, seed in (("tiny", 1), ("same", 1), ("other", 2)):
        file = write_gguf(home / name / f"{name}.gguf", seed=seed, max_context=2048, marks=MARKS)
        catalog.install_gguf(file, home / name, name=name, licence="none", source=Source("random", file_sha256(file)))
    return home


@pytest.fixture(autouse=True)
def _use_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_HOME", str(home))


@pytest.fixture(autouse=True)
def _fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suites' own processes without the second that each would import; `test_link.py` starts a fresh one."""

    def start(module: str, core: int | None = None) -> Forked:
        return Forked([module], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr(pinned, "start", start)


@pytest.fixture(scope="module")
def measured(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[Done, Path]]]:
    """A suite's run, done once, and the folder with its file and its figures."""
    folder, runs = tmp_path_factory.mktemp("bench"), dict[str, Done]()

    def once(suite: str) -> tuple[Done, Path]:
        where = folder / suite
        if suite not in runs:
            where.mkdir()
            words = [suite, *ARGUMENTS[suite].split(), "--quick", "--json", str(where / "r.json")]
            runs[suite] = bench(*words, *(["--plots", str(where / "plots")] if suite in DRAWN else []))
        return runs[suite], where

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTRIDER_HOME", str(home))
        yield once


Measured = Callable[[str], tuple[Done, Path]]


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_runs_and_its_tables_are_made_again_from_its_file(suite: str, measured: Measured) -> None:
    done, folder = measured(suite)
    assert done.status == 0, done.out + done.err
    result = load(folder / "r.json")
    assert result.suite == suite
    assert result.command[:3] == ["outrider", "bench", suite]
    assert all(way.name in done.out for way in result.ways)
    assert {run.way for run in result.runs} == set(result.names())
    assert (f"in all {result.num_checked} runs of ours: yes." in done.out) == (result.num_checked > 0)

    again = bench("show", str(folder / "r.json"))
    assert (again.status, again.out, again.err) == (0, done.out, "")


@pytest.mark.parametrize("suite", SUITES)
def test_progress_is_a_line_a_stage_where_nobody_watches(suite: str, measured: Measured) -> None:
    done, _ = measured(suite)
    told = [line for line in done.err.splitlines() if not line.startswith("drawn: ")]
    assert 1 <= len(told) <= 6, done.err
    assert all(line.endswith(" ...") for line in told)


def named_in(figure: str, result: Result) -> list[str]:
    """The ways that it is about; those of two suites have names of their own in it."""
    return list(result.profiles) if "cost" in figure else [] if result.suite in ("wire", "service") else result.names()


@pytest.mark.parametrize("suite", DRAWN)
def test_figures_are_drawn_and_are_not_blank(suite: str, measured: Measured) -> None:
    from PIL import Image

    done, folder = measured(suite)
    result = load(folder / "r.json")
    drawn = sorted((folder / "plots").iterdir())
    assert {f"drawn: {path}" for path in drawn} == set(re.findall("^drawn: .*$", done.err, re.MULTILINE))
    figures = {path.stem for path in drawn}
    assert [path.name for path in drawn] == [
        f"{name}.{suffix}" for name in sorted(figures) for suffix in ("png", "svg")
    ]
    for name in figures:
        red, green, blue, _ = np.asarray(Image.open(folder / "plots" / f"{name}.png"), np.int16).transpose(2, 0, 1)
        brightest, darkest = (each(each(red, green), blue) for each in (np.maximum, np.minimum))
        assert 0.001 < (brightest < 90).mean() < 0.5, name
        assert (darkest > 250).mean() > 0.4, name  # on white
        assert (brightest - darkest > 64).mean() > 0.001, name  # something in colour
        text = (folder / "plots" / f"{name}.svg").read_text()
        assert all(each in text for each in named_in(name, result)), name


@pytest.mark.parametrize("suite", [suite for suite in SUITES if suite not in DRAWN])
def test_a_figure_names_what_it_shows_and_no_panel_is_empty(suite: str, measured: Measured) -> None:
    from matplotlib.text import Text

    result = load(measured(suite)[1] / "r.json")
    for name, figure in FIGURES[suite](result):
        assert {text.get_text() for text in figure.findobj(Text)} >= set(named_in(name, result)), name
        assert all(axis.lines or axis.patches for axis in figure.axes), name


def test_the_pair_says_what_the_target_says_and_a_drafter_like_it_is_always_right(measured: Measured) -> None:
    result = load(measured("pair")[1] / "r.json")
    names = ["target alone, other", "target alone, passes of one", IN_CLASS, "pair, lookup", "pair, same"]
    assert result.names() == names
    # Each way once a prompt, one of each kind, 24 tokens unless the text ends.
    assert sorted((run.way, run.kind) for run in result.runs) == sorted((w, k) for w in names for k in ("code", "chat"))
    assert {run.prompt for run in result.runs} == {"HumanEval/0", "prompts/1"}
    for kind in ("code", "chat"):
        [alone], [same] = (result.select(way=way, kind=kind) for way in (IN_CLASS, "pair, same"))
        assert alone.passes == alone.num_tokens == same.num_tokens <= 24
        assert same.digest == alone.digest
        assert same.accepted == same.drafted
        assert result.select(way="target alone, other", kind=kind)[0].digest != alone.digest
    assert len(result.warm_ups) == 2 * len(names)
    assert set(result.profiles) == {"tiny, llama.cpp, 1 thread"}


def test_the_link_has_four_ways_at_every_round_trip(measured: Measured) -> None:
    result = load(measured("link")[1] / "r.json")
    assert len(result.runs) == 2 * 2 * 4  # kinds, round trips, ways
    first = [run.way for run in result.runs[:4]]
    assert [run.way for run in result.runs[4:8]] == [*first[1:], first[0]]  # the order moves on
    assert {run.rtt_ms for run in result.runs} == {0.0, 5.0}
    alone = result.select(way="target alone")
    assert all(run.num_tokens == run.passes == 24 and run.more["wire"]["num_up"] == 0 for run in alone)
    turns = result.select(way="device, in turns")
    assert all(run.more["num_drafts"] >= 1 for run in turns)
    assert result.is_exact
    assert {kind: len(traces) for kind, traces in result.details["traces"].items()} == {"code": 1, "chat": 1}


def test_the_service_is_asked_by_one_and_by_two(measured: Measured) -> None:
    done, folder = measured("service")
    result = load(folder / "r.json")
    order = [("plain", 1), ("drafting", 1), ("drafting", 2), ("plain", 2)]  # who comes first changes
    assert [(run.way, run.num_sessions) for run in result.runs[::2]] == order
    assert [(run.prompt, run.num_tokens) for run in result.runs] == 4 * [("counting/0", 24), ("counting/1", 24)]
    of = {(each["way"], each["num_sessions"]): each["figures"] for each in result.details["measured"]}
    assert all(figures["num_tokens"] <= 48 for figures in of.values())
    assert of["plain", 1]["acceptance"] is None
    assert 0 < of["plain", 1]["overhead"] < 1
    assert result.details["limit"]["messages_per_s"] > 0
    assert "Without a model, 3 sessions:" in done.out


def test_drafters_are_judged_side_by_side(measured: Measured) -> None:
    done, folder = measured("export")
    result = load(folder / "r.json")
    assert [(run.way, run.kind) for run in result.runs] == [
        ("same", "code"),
        ("other", "code"),
        ("other", "chat"),
        ("same", "chat"),
    ]
    for run in result.select(way="same"):
        assert (run.more["agreement"], run.accepted) == (1.0, run.num_tokens)
        assert run.more["kl"] < 1e-6
        assert run.more["ms_per_token"] > 0
    assert all(run.more["agreement"] < 0.5 and run.more["kl"] > 0.01 for run in result.select(way="other"))
    assert re.search(r"\| same \| 0 \| .* \| 1\.000 \|", done.out)


def test_a_store_without_a_drafter_is_told_in_a_sentence() -> None:
    from benchmarks import export

    with pytest.raises(
        InvalidParameter, match=r"no drafter .*; same: over half the size of tiny; name it with --drafter"
    ):
        export.run(ExportOptions(target="tiny", prompts=Selection(("chat",), 1)), [])


def test_the_wire_is_as_long_as_its_messages(measured: Measured) -> None:
    done, folder = measured("wire")
    result = load(folder / "r.json")
    runs = {(run.way, run.kind): run for run in result.runs}
    assert len(runs) == len(result.runs) == 2 * 2 * 2  # lengths, padding, texts
    right, bare = runs["4 drafts a turn, padded", "all right"], runs["4 drafts a turn, bare", "all right"]
    assert right.num_tokens == bare.num_tokens == 96
    assert right.passes == bare.passes == right.more["messages_down"] < 96 / 4
    assert right.bytes_up == 200 * right.more["messages_up"]  # header 4, mask 4, 192
    assert right.bytes_down == 196 * right.more["messages_down"]
    assert bare.bytes_up is not None
    assert 4 * 96 * 4 / 5 < bare.bytes_up < right.bytes_up / 3
    plain = runs["0 drafts a turn, padded", "all right"]
    assert (plain.bytes_up, plain.bytes_down, plain.passes) == (0, 196 * 96, 96)
    # What passed the proxy beyond the messages: an HTTP request, an Open padded to a page, an answer.
    assert 4096 < right.more["rest_up"] < 5200
    assert bare.more["rest_up"] < 1200
    wrong = runs["4 drafts a turn, padded", "all wrong"]
    assert (wrong.accepted, wrong.passes) == (0, 96)
    assert {each.name for each in result.published} == {"SpecEdge", "AutoDraft", "PicoSpec"}
    assert "Published elsewhere" in done.out


def test_a_line_is_suggested_for_every_key_that_waits(measured: Measured) -> None:
    done, folder = measured("typing")
    result = load(folder / "r.json")
    paced, waiting = (result.select(way=way) for way in result.names())
    assert [run.prompt for run in paced] == [run.prompt for run in waiting] == [f"key/{number}" for number in range(4)]
    assert all(run.more["is_whole"] and run.more["first_line_s"] is not None for run in waiting)
    assert all(0 < run.num_tokens <= 32 for run in waiting)
    assert all(run.more["first_line_s"] <= run.more["elapsed_s"] for run in waiting)
    whole = {run.prompt: run.digest for run in paced if run.more["is_whole"]}
    assert {run.prompt: run.digest for run in waiting}.items() >= whole.items()  # the same key, the same line
    assert "| each when the suggestion before it is whole | 4 |" in done.out


def test_a_fleet_is_simulated(measured: Measured) -> None:
    done, folder = measured("fleet")
    result = load(folder / "r.json")
    assert result.environment.load is None
    assert "Simulated, not measured. core:" in done.out
    assert {run.prompt for run in result.runs} == {"many devices", "one device"}
    figures = {"capacity-over-devices", "price-over-devices", "speed-over-rtt"}
    assert {path.stem for path in (folder / "plots").iterdir()} == figures


# Peers


@dataclass(frozen=True)
class TinyPeer:
    """A program beside ours: the tiny target on its own engine. It answers `lives` prompts each time it is opened."""

    name: str
    settings: Sequence[str] = ("plain",)
    is_missing: bool = False
    lives: int = 10**6
    weights: str = "tiny, as it is"

    def reason(self) -> str | None:
        return "it is not installed" if self.is_missing else None

    def open(self, setting: str) -> OpenPeer:
        if setting == "broken":
            raise PeerFailed("no such setting")
        return OpenTiny(self.lives)


class OpenTiny:
    def __init__(self, lives: int) -> None:
        self._engine = open_engine(catalog.find("tiny"), EngineSettings(num_threads=1, max_context=1024))
        self._lives = lives

    def generate(self, prompt_ids: Sequence[int], max_tokens: int) -> PeerAnswer:
        self._lives -= 1
        if self._lives < 0:
            raise PeerFailed("it died")
        answer = greedy_alone(self._engine, [2], prompt_ids, max_tokens)
        return PeerAnswer(answer.token_ids, answer.seconds, answer.first_s, (answer.passes or 1) - 1)

    def close(self) -> None:
        self._engine.close()


PUBLISHED = [Published("Far", "9x", "another machine", "its paper")]


def with_peers(*peers: Peer, wanted: str, is_quick: bool = True) -> Result:
    options = PairOptions(
        target="tiny",
        drafters=("lookup", "qwen2.5-coder-0.5b-onnx-trim"),
        also=("smollm2-135m-instruct",),
        threads=1,
        peers=wanted,
        prompts=Selection(("chat",), count=1),
        max_tokens=8,
        is_quick=is_quick,
    )
    return pair.run(options, ["outrider", "bench", "pair"], peers, PUBLISHED)


def test_peers_take_their_turns_on_the_same_prompts_at_their_best_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair, "PAUSE_S", 0.001)
    peers = [
        TinyPeer("unwanted"),
        TinyPeer("llama", ["a", "broken", "b"]),
        TinyPeer("absent", is_missing=True),
        TinyPeer("dying", ["a", "b"], lives=1),
    ]
    result = with_peers(*peers, wanted="llama,absent,dying", is_quick=False)
    assert result.names("peer") == ["llama"]
    [run] = result.select(way="llama")
    [alone] = result.select(way="target alone, passes of one")
    assert (run.digest, run.prompt, run.passes) == (alone.digest, alone.prompt, alone.passes)
    tried = {each.setting: each.tokens_per_s for each in result.warm_ups if each.way == "llama"}
    assert set(tried) == {"a", "b"}
    assert run.setting == max(tried, key=tried.__getitem__)
    reasons = {each.name: each.reason for each in result.missing}
    assert reasons["absent"] == "it is not installed"
    assert reasons["dying"] == "b: it died"
    assert "run: outrider pull smollm2-135m-instruct" in reasons["target alone, smollm2-135m-instruct"]
    assert "run: outrider export qwen2.5" in reasons["pair, qwen2.5-coder-0.5b-onnx-trim"]
    assert result.names("ours") == ["pair, lookup"]
    text = "\n".join(lines(result))
    table, _, below = text.partition("Could not run here")
    assert "| llama |" in table
    assert f"- llama: tiny, as it is; its best setting: {run.setting} on chat" in table
    assert "- dying: b: it died" in below
    assert "| Far | 9x | another machine | its paper |" in below
    assert "dying" not in table


def test_a_peer_that_dies_while_it_is_measured_leaves_no_row() -> None:
    """It lives through its warm-up, and dies over the prompt of the table."""
    result = with_peers(TinyPeer("dying", lives=1), TinyPeer("llama"), wanted="all")
    assert result.names("peer") == ["llama"]
    assert not result.select(way="dying")
    assert {each.name: each.reason for each in result.missing}["dying"] == "it died"


def test_what_there_is_is_kept_after_each_round(tmp_path: Path) -> None:
    """A table of it says that it is part."""
    kept: list[tuple[str, int]] = []
    file = tmp_path / "r.json"

    def keep(result: Result) -> None:
        save(result, file)
        again = load(file)
        kept.append((again.partial, len(again.runs)))
        if len(kept) == 1:
            raise KeyboardInterrupt

    options = PairOptions(
        target="tiny", drafters=("lookup",), also=(), threads=1, prompts=Selection(("chat",), 2), max_tokens=8
    )
    with pytest.raises(KeyboardInterrupt):
        pair.run(replace(options, is_quick=True), [], keep=keep)
    assert kept == [("1 of 2 rounds", 3)]
    text = "\n".join(lines(load(file)))
    assert "PARTIAL: it was stopped, or it still runs; 1 of 2 rounds." in text
    assert "| pair, lookup | " in text
    assert "It took" not in text


def test_peers_are_chosen_by_the_beginnings_of_their_names() -> None:
    peers = [TinyPeer("llama"), TinyPeer("llama, drafts"), TinyPeer("other")]

    def chosen(wanted: str) -> list[str]:
        return [each.way.name for each in peer_ways(peers, wanted)[0]]

    assert chosen("all") == ["llama", "llama, drafts", "other"]
    assert chosen("llama") == ["llama", "llama, drafts"]
    assert chosen("llama, drafts,other") == ["llama, drafts", "other"]
    assert chosen("none") == []
    with pytest.raises(
        InvalidParameter, match="no peer's name begins with 'gpt'; there are: llama; llama, drafts; other"
    ):
        chosen("other, gpt")


# What is asked wrongly


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("link --target counting --rtt 1,x", "--rtt '1,x' is no list of numbers"),
        ("link --target counting --rtt -1", "--rtt '-1' is no list of numbers"),
        ("link --target counting --rtt nan", "--rtt 'nan' is no list of numbers"),
        ("service --target counting --sessions 0", "--sessions '0' is no list of whole numbers"),
        ("service --target counting --sessions 1.5", "--sessions '1.5' is no list of whole numbers"),
        ("service --target counting --sessions 3 --count 2", "3 devices need as many prompts, and there are 2"),
        ("wire --lengths 1000", "--lengths '1000' is no list of whole numbers"),
        ("pair --kinds poems", "no prompts of kind 'poems'"),
        ("pair --kinds ,", "--kinds names none"),
        ("pair --prompts FOLDER/none.jsonl", "cannot be read"),
        ("pair --prompts FOLDER/bad.jsonl", "line 2 of FOLDER/bad.jsonl is no prompt"),
        ("wire --json FOLDER/no/r.json", "there is no folder FOLDER/no"),
        ("fleet --parts capacity,colour", "--parts names 'colour'; there are capacity, rtt, cost"),
        ("fleet --kinds poems", "--kinds names 'poems'; there are code, chat"),
        ("fleet --engine nobody", "'nobody' is no machine; give one of core, xeon-core"),
        ("fleet --rate 0", "--rate is 0; give a number above 0"),
        ("fleet --verifier-hour nan", "--verifier-hour is nan; give a number above 0"),
        ("fleet --prices FOLDER/none.toml", "none.toml cannot be read"),
        ("show FOLDER/none.json", "cannot be read"),
        ("show FOLDER/bad.jsonl", "is no benchmark's result"),
        ("show FOLDER/poem.json", "no suite is called 'poem'"),
        ("show FOLDER/half.json", "does not hold together"),
    ],
)
def test_what_is_asked_wrongly_ends_in_one_sentence(line: str, words: str, tmp_path: Path, measured: Measured) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    whole = json.loads((measured("wire")[1] / "r.json").read_text())
    (tmp_path / "poem.json").write_text(json.dumps(whole | {"suite": "poem"}))
    (tmp_path / "half.json").write_text(json.dumps(whole | {"details": {}}))
    done = bench(*line.replace("FOLDER", str(tmp_path)).split())
    assert done.status == 2
    [told] = [line for line in done.err.splitlines() if not line.endswith(" ...")]
    assert words.replace("FOLDER", str(tmp_path)) in told
    assert told.endswith("[invalid_parameter]")


@pytest.mark.parametrize("suite", ["link", "service", "typing"])
def test_what_a_process_of_a_suite_cannot_have_is_told_as_anything_else(suite: str) -> None:
    done = bench(suite, *["--target", "tiny", "--drafter", "nobody", "--threads", "1", "--quick"])
    assert done.status == 2
    [told] = [line for line in done.err.splitlines() if not line.endswith(" ...")]
    assert told == "outrider: no model, recipe or path is called 'nobody'; nearest: tiny [unknown_model]"


def test_what_is_listed_twice_is_measured_once() -> None:
    assert suites.numbers("5,0,5", "--rtt", float, least=0) == (5.0, 0.0)
    assert suites.words("chat, code,chat", "--kinds") == ("chat", "code")


def test_other_tokens_than_the_target_s_end_with_status_1(measured: Measured, tmp_path: Path) -> None:
    whole = json.loads((measured("pair")[1] / "r.json").read_text())
    [run] = [run for run in whole["runs"] if (run["way"], run["kind"]) == ("pair, same", "code")]
    run["digest"] = "0" * 16
    (tmp_path / "r.json").write_text(json.dumps(whole))
    done = bench("show", str(tmp_path / "r.json"))
    assert done.status == 1
    assert "Other tokens: pair, same: code, HumanEval/0." in done.out


def test_prompts_of_a_file_are_asked(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(
        '{"prompt": "hello", "kind": "greeting"}\n{"prompt": "hell", "kind": "greeting"}\n'
    )
    words = "export --target tiny --drafter same --quick --threads 1 --prompts"
    done = bench(*words.split(), str(tmp_path / "mine.jsonl"), "--json", str(tmp_path / "r.json"))
    assert done.status == 0, done.err
    [run] = load(tmp_path / "r.json").runs
    assert (run.kind, run.prompt) == ("greeting", "mine/1")
