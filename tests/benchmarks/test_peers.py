import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import gguf
import msgspec
import psutil
import pytest

from benchmarks.peers import process
from benchmarks.peers.base import PeerAnswer, PeerFailed
from benchmarks.peers.known import Weights, all_peers
from benchmarks.peers.libraries import Apart, Installed
from benchmarks.peers.process import Machine, Model, ProcessPeer
from benchmarks.peers.program import Ask
from benchmarks.peers.published import published
from outrider.gguf_tokenizer import tokenizer_json
from tests.benchmarks.every_job import Errand, answers
from tests.export.models import TOKENS, write_gguf
from tests.toy_gguf import toy_metadata

# On this model, whose every choice here is clear by 0.13 or more: one answer that repeats itself, one that ends.
ASKS = [Ask([1, 195, 184, 20, 141, 184, 20, 141], 24), Ask([1, 215, 242, 220, 176, 71], 24)]
GREEDY = [[178, 232, 147, 178, 232, 178, 232, 26, 254, 170] + [263] * 14, [133, 132, 248, 152, 152, 152, 256, 152, 2]]
LEAST_MARGIN = 0.13
ONE_CORE = Machine(num_threads=1, cores=(min(os.sched_getaffinity(0)),), max_context=256)


@contextmanager
def quietly() -> Iterator[None]:
    """Libraries that convert models print and warn."""
    with warnings.catch_warnings(), redirect_stdout(None):
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """The same weights as target and as drafter, in the format that is made without PyTorch."""
    tiny = Model("tiny", write_gguf(tmp_path_factory.mktemp("peers") / "tiny" / "tiny.gguf"))
    none = Model("tiny", None, "it is made in a slow test")
    return Weights(tiny, tiny, none, none, tiny, stop_ids=(2,))


@pytest.fixture(scope="module")
def all_weights(weights: Weights) -> Weights:
    """The same in ONNX, and in half precision, which holds them without loss and which OpenVINO wants."""
    import llama_cpp
    from onnxruntime_genai.models.builder import create_model

    from benchmarks.peers.hf_transformers import widened

    assert weights.gguf_target.path is not None
    home = weights.gguf_target.path.parents[1]
    (home / "half").mkdir()
    half, onnx = Model("tiny", home / "half" / "half.gguf"), Model("tiny", home / "onnx")
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_F16
    names = str(weights.gguf_target.path).encode(), str(half.path).encode()
    assert llama_cpp.llama_model_quantize(*names, params) == 0
    with quietly():
        folder = widened(weights.gguf_target.path)
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(toy_metadata())))
        create_model(None, str(folder), str(onnx.path), "fp32", "cpu", str(home / "cache"), hf_token="false")
    return Weights(half, half, onnx, onnx, half, stop_ids=(2,))


@pytest.fixture(scope="module")
def peers(weights: Weights) -> dict[str, ProcessPeer]:
    return {peer.name: peer for peer in all_peers(weights, ONE_CORE) if isinstance(peer, ProcessPeer)}


@pytest.mark.slow
def test_the_expected_answers_are_the_clear_choices_of_the_model(weights: Weights) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    gguf = weights.gguf_target.path
    assert gguf is not None
    with quietly():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    for ask, greedy in zip(ASKS, GREEDY, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([ask.prompt_ids + greedy[:-1]])).logits[0, len(ask.prompt_ids) - 1 :]
        best = logits.topk(2)
        assert best.indices[:, 0].tolist() == greedy
        assert (best.values[:, 0] - best.values[:, 1]).min() > LEAST_MARGIN


def every_answer(peers: list[ProcessPeer], home: Path) -> dict[tuple[str, str], list[PeerAnswer]]:
    """All settings of peers that share a library, in one process."""
    cases = [(peer, setting) for peer in peers for setting in peer.settings]
    jobs = []
    for number, (peer, setting) in enumerate(cases):
        work = home / str(number)
        work.mkdir()
        job = peer.job(setting, work)
        jobs.append(msgspec.structs.replace(job, num_threads=2) if "OpenVINO" in peer.name else job)  # one crashes it
    errand = Errand(jobs, ASKS)
    if peers[0].name.startswith("transformers"):  # it is loaded here already, and takes seconds to load
        with quietly():
            found = answers(errand)
    else:
        found = msgspec.json.decode(in_process(errand, peers[0].library.search_path()), type=list[list[PeerAnswer]])
    return {(peer.name, setting): each for (peer, setting), each in zip(cases, found, strict=True)}


def in_process(errand: Errand, search_path: Path | None) -> bytes:
    paths = [str(path) for path in (search_path, Path(__file__).parents[2]) if path]
    command = [sys.executable, "-m", "tests.benchmarks.every_job"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    ended = subprocess.run(
        command, input=msgspec.json.encode(errand), capture_output=True, env=environment, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout


@pytest.mark.parametrize("library", ["llama.cpp", "llama-cpp-python"])
def test_every_setting_of_a_peer_says_what_plain_greedy_says(
    library: str, peers: dict[str, ProcessPeer], tmp_path: Path
) -> None:
    chosen = [peer for name, peer in peers.items() if name == library or name.startswith(f"{library}, ")]
    assert len(chosen) >= 2
    assert chosen[0].reason() is None
    found = every_answer(chosen, tmp_path)
    for case, each in found.items():
        assert [answer.token_ids for answer in each] == GREEDY, case
        assert all(answer.seconds > 0 and answer.first_s > 0 for answer in each), case
    if library != "llama-cpp-python":  # which does not tell its passes
        fewest: dict[str, int] = {}
        for (name, _), each in found.items():
            assert each[0].num_passes or library in name
            fewest[name] = min(fewest.get(name, 99), each[0].num_passes or 99)
        drafting = [name for name in fewest if name not in {library, "llama.cpp, n-gram drafts"}]
        assert drafting
        assert all(fewest[name] < len(GREEDY[0]) - 1 for name in drafting), fewest


@pytest.mark.slow
@pytest.mark.parametrize("library", ["ONNX Runtime GenAI", "OpenVINO GenAI", "transformers"])
def test_every_setting_of_a_larger_library_says_so_too(library: str, all_weights: Weights, tmp_path: Path) -> None:
    found = {peer.name: peer for peer in all_peers(all_weights, ONE_CORE) if isinstance(peer, ProcessPeer)}
    test_every_setting_of_a_peer_says_what_plain_greedy_says(library, found, tmp_path)


@pytest.mark.slow
def test_tightwad_says_what_its_target_says(tmp_path: Path) -> None:
    """It speaks text, so the model may only say what is text: the rest of its vocabulary is silenced."""
    target = write_gguf(tmp_path / "spoken" / "tiny.gguf")
    reader = gguf.GGUFReader(target, "r+")
    rows = next(tensor for tensor in reader.tensors if tensor.name == "output.weight").data
    rows[[not text.isascii() or not text.isprintable() or text in TOKENS[-9:] for text in TOKENS]] = 0
    rows[:3] = 0
    reader.data.flush()
    spoken, none = Model("spoken", target), Model("none", None, "not here")
    weights = Weights(spoken, spoken, none, none, none, (2,))
    peers = {peer.name: peer for peer in all_peers(weights, ONE_CORE) if isinstance(peer, ProcessPeer)}
    if reason := peers["Tightwad"].reason():
        pytest.skip(reason)
    prompt_ids = [1, 50, 60, 70]
    said = {}
    for name in ("llama.cpp", "Tightwad"):
        opened = peers[name].open(peers[name].settings[0])
        said[name] = opened.generate(prompt_ids, 24)
        opened.close()
    assert said["Tightwad"].token_ids == said["llama.cpp"].token_ids
    assert len(said["Tightwad"].token_ids) == 24
    assert said["Tightwad"].seconds > 0


def test_a_peer_runs_in_a_process_on_its_cores_until_it_is_closed(peers: dict[str, ProcessPeer]) -> None:
    peer = peers["llama.cpp, draft model"]
    assert peer.reason() is None
    opened = peer.open("4 drafts")
    child = psutil.Process(opened.pid)
    try:
        assert tuple(child.cpu_affinity()) == ONE_CORE.cores
        for ask, greedy in zip(ASKS, GREEDY, strict=True):
            assert opened.generate(ask.prompt_ids, ask.max_tokens).token_ids == greedy
    finally:
        opened.close()
        opened.close()
    assert not child.is_running()


def scripted(tmp_path: Path, body: str, library: Any = None) -> ProcessPeer:
    """A peer whose program is the test's own."""
    (tmp_path / "its_program.py").write_text(f"import os, signal, time\ndef open_program(job):\n    {body}\n")
    library = library or Apart("its_program", (str(tmp_path),))
    return ProcessPeer(
        "its", "none", "its_program", library, Model("none", tmp_path), None, {"one": {}}, (2,), ONE_CORE
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ValueError('no such weights\\nand more')", "ValueError: no such weights"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "its process was ended by SIGKILL"),
        ("print('out of luck', flush=True); os._exit(3)", "its process ended with status 3; out of luck"),
        ("time.sleep(600)", "it gave no answer within 0.3 s"),
    ],
)
def test_a_peer_that_cannot_be_loaded_gives_its_reason(
    body: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in body:
        monkeypatch.setattr(process, "OPEN_S", 0.3)
    with pytest.raises(PeerFailed) as caught:
        scripted(tmp_path, body).open("one")
    assert str(caught.value) == reason
    assert not list(tmp_path.glob("peer-*"))


def test_what_a_program_prints_is_no_answer_and_its_death_over_a_prompt_is_a_reason(tmp_path: Path) -> None:
    body = "print('noise', flush=True); return type('P', (), {'generate': lambda *_: os.kill(os.getpid(), 9)})()"
    opened = scripted(tmp_path, body).open("one")
    try:
        with pytest.raises(PeerFailed, match="was ended by SIGKILL; noise"):
            opened.generate([1], 2)
        with pytest.raises(PeerFailed, match="was ended by SIGKILL"):
            opened.generate([1], 2)
    finally:
        opened.close()


def test_what_is_missing_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Installed("no_such_library").reason() == (
        'no_such_library is not installed; run: pip install "outrider[peers]"'
    )
    apart = Apart("no_such_library", ("no-such-library==1.0",))
    assert apart.reason() == "no-such-library==1.0 is not installed; run: python -m benchmarks.peers --install"
    with pytest.raises(PeerFailed, match="peers --install"):
        scripted(tmp_path, "return None", apart).open("one")
    monkeypatch.setenv("OUTRIDER_HOME", str(tmp_path / "empty"))
    reasons = {peer.name: peer.reason() or "" for peer in all_peers(machine=ONE_CORE) if isinstance(peer, ProcessPeer)}
    assert all("qwen2.5-coder" in reason or "not installed" in reason for reason in reasons.values()), reasons


def test_published_figures_carry_their_conditions_and_are_of_no_measured_peer(peers: dict[str, ProcessPeer]) -> None:
    figures = published()
    assert len({figure.name for figure in figures}) == len(figures) >= 5
    assert all(figure.figure and figure.conditions and figure.source for figure in figures)
    assert not {figure.name for figure in figures} & set(peers)
    autodraft = next(peer for peer in all_peers(machine=ONE_CORE) if peer.name == "AutoDraft")
    assert "GPU" in (autodraft.reason() or "")
    with pytest.raises(PeerFailed, match="GPU"):
        autodraft.open("any")
