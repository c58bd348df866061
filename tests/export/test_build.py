import shutil
from pathlib import Path

import numpy as np
import pytest

from export import build as build_module
from export import report
from export.build import build, present
from export.recipe import Recipe, Trim, make_recipe
from outrider import catalog
from outrider.engines import Chunk, EngineSettings, open_engine
from outrider.errors import InvalidModel, UnknownModel, UsageError
from outrider.manifest import Manifest, file_sha256
from outrider.progress import silent
from outrider.tokens import TextCodec
from tests.export.conftest import Built
from tests.export.models import N_VOCAB, TOKENS


@pytest.fixture(autouse=True)
def short(in_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short report and no profile: measuring passes takes seconds and is tested where it lives."""
    monkeypatch.setattr(report, "NUM_TOKENS", 6)
    monkeypatch.setattr(report, "NUM_TIMED", 2)
    monkeypatch.setattr(report, "SETTINGS", EngineSettings(num_threads=1, max_context=512))
    monkeypatch.setattr(report, "PROMPTS", {"code": ("hello",), "chat": ("hello hello",)})
    monkeypatch.setattr(build_module, "load_or_measure", lambda *arguments: None)


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_trimmed_gguf_from_a_file(tmp_path: Path, gguf_file: Path, corpus: Path) -> None:
    recipe = make_recipe(str(gguf_file), format="gguf", quantization="q8_0", trim=128, corpus=[str(corpus)])
    folder = build("tiny-trim", recipe, tmp_path / "out", silent)
    manifest, source = folder.manifest, catalog.find(str(gguf_file))
    assert folder.path == tmp_path / "out"
    assert manifest.files == {
        path.name: file_sha256(path) for path in folder.path.iterdir() if path.name != "manifest.json"
    }
    assert manifest.source.sha256 == source.manifest.fingerprint
    assert manifest.tokenizer_fingerprint == source.manifest.tokenizer_fingerprint
    assert (manifest.n_vocab, manifest.stop_ids) == (len(TOKENS), source.manifest.stop_ids)
    ids = np.load(folder.path / str(manifest.id_map))
    assert (len(ids), ids.dtype) == (128, np.int32)
    assert {0, 1, 2, TOKENS.index("hello"), TOKENS.index("\u0120hello")} <= set(ids.tolist())
    assert TextCodec(folder).decode(TextCodec(folder).encode("hello")) == "hello"
    assert manifest.report is not None
    assert manifest.report["num_columns"] == 128
    assert manifest.report["size_bytes"] == sum((folder.path / name).stat().st_size for name in manifest.files)
    assert 0 < manifest.report["source"]["coverage"] < 1
    assert temporaries(tmp_path) == []


def test_fused_onnx_from_a_gguf_file_then_trimmed_from_that(tmp_path: Path, gguf_file: Path, corpus: Path) -> None:
    full = build("full", make_recipe(str(gguf_file)), tmp_path / "full", silent)
    assert full.manifest.report is not None
    assert full.manifest.report["source"]["coverage"] == 1
    assert full.manifest.report["source"]["kl"] < 0.5
    recipe = make_recipe(str(full.path), trim=128, corpus=[str(corpus)], target=str(gguf_file))
    trimmed = build("trimmed", recipe, tmp_path / "trimmed", silent)
    rows = []
    for folder in (full, trimmed):
        engine = open_engine(folder, EngineSettings(num_threads=1, max_context=64))
        rows.append(engine.extend([Chunk(engine.allocate(), [1, 70, 71], 3)])[0].copy())
        engine.close()
    np.testing.assert_array_equal(rows[1], rows[0][:, np.load(trimmed.path / "id_map.npy")])
    assert trimmed.manifest.report is not None
    assert trimmed.manifest.report["target"]["name"] == str(gguf_file)
    assert trimmed.manifest.report["source"]["kl"] == pytest.approx(0, abs=1e-5)


def test_general_onnx_from_a_hugging_face_folder(tmp_path: Path, built: Built) -> None:
    source = built.source("llama").path
    recipe = make_recipe(str(source), builder="general", quantization="int8", target="no-such-model")
    folder = build("general", recipe, tmp_path / "general", silent)
    assert folder.manifest.n_vocab == N_VOCAB
    assert folder.manifest.report is not None
    assert 0 < folder.manifest.report["source"]["kl"] < 0.01
    assert "no-such-model" in folder.manifest.report["target"]["skipped"]


def test_a_second_run_finds_the_result(tmp_path: Path, gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(str(gguf_file), format="gguf")
    first = build("tiny", recipe, tmp_path / "out", silent, has_report=False)
    assert first.manifest.report is None
    monkeypatch.setattr(build_module, "make", None)  # whoever builds again fails
    assert build("tiny", recipe, tmp_path / "out", silent).manifest.report is not None
    monkeypatch.setattr(build_module, "make_report", None)
    second = build("tiny", recipe, tmp_path / "out", silent)
    assert second.manifest.fingerprint == first.manifest.fingerprint
    with pytest.raises(TypeError):
        build("tiny", recipe, tmp_path / "out", silent, is_forced=True)
    (tmp_path / "out" / first.manifest.file).unlink()
    assert present(tmp_path / "out", recipe) is None


def test_another_recipe_replaces_the_result_when_it_is_complete(
    tmp_path: Path, gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "out"
    build("tiny", make_recipe(str(gguf_file), format="gguf"), place, silent, has_report=False)
    before = (place / "manifest.json").read_bytes()
    other = make_recipe(str(gguf_file), format="gguf", quantization="q8_0")

    def fail(*arguments: object) -> Manifest:
        raise InvalidModel("no")

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "hashed", fail)
        with pytest.raises(InvalidModel):
            build("tiny", other, place, silent, has_report=False)
    assert (place / "manifest.json").read_bytes() == before
    assert temporaries(tmp_path) == []
    assert build("tiny", other, place, silent, has_report=False).manifest.recipe["quantization"] == "q8_0"
    assert temporaries(tmp_path) == []


def test_a_run_that_was_killed_leaves_nothing_to_the_next(tmp_path: Path, gguf_file: Path) -> None:
    recipe = make_recipe(str(gguf_file), format="gguf")
    left = tmp_path / ".out.building" / "full"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")
    folder = build("tiny", recipe, tmp_path / "out", silent, has_report=False)
    assert "half" not in folder.manifest.files
    assert temporaries(tmp_path) == []


def test_of_two_at_once_one_goes_on(tmp_path: Path, gguf_file: Path) -> None:
    recipe = make_recipe(str(gguf_file), format="gguf")
    refused: list[str] = []

    def again(stage: str, done: int, total: int) -> None:
        if stage == "hash the files" and not refused:
            with pytest.raises(UsageError, match="another process makes"):
                build("tiny", recipe, tmp_path / "out", silent, has_report=False)
            refused.append(stage)

    assert build("tiny", recipe, tmp_path / "out", again, has_report=False).path.is_dir()
    assert refused
    assert temporaries(tmp_path) == []


def test_of_another_source_it_is_made_again(tmp_path: Path, gguf_file: Path) -> None:
    base, recipe = tmp_path / "base", make_recipe(str(tmp_path / "base"), format="gguf", quantization="q4_0")
    build("base", make_recipe(str(gguf_file), format="gguf", quantization="f16"), base, silent, has_report=False)
    build("tiny", recipe, tmp_path / "out", silent, has_report=False)
    assert present(tmp_path / "out", recipe) is not None
    build("base", make_recipe(str(gguf_file), format="gguf", quantization="q8_0"), base, silent, has_report=False)
    assert present(tmp_path / "out", recipe) is None
    shutil.rmtree(base)
    assert present(tmp_path / "out", recipe) is not None  # there is nothing to make it from, nor a need


def test_what_is_not_an_export_is_never_replaced(tmp_path: Path, gguf_file: Path) -> None:
    recipe = make_recipe(str(gguf_file), format="gguf")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    with pytest.raises(UsageError, match="not an export; name another place"):
        build("tiny", recipe, tmp_path / "mine", silent, is_forced=True)
    pulled = catalog.find(str(gguf_file)).path
    with pytest.raises(UsageError, match="not an export"):
        build("tiny", recipe, pulled, silent, is_forced=True)
    assert (tmp_path / "mine" / "diary.txt").read_text() == "dear"


def test_a_recipe_as_source_is_built_first_and_reused(
    tmp_path: Path, gguf_file: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base.toml").write_text(
        f'kind = "recipe"\nsource = "{gguf_file}"\nformat = "gguf"\nquantization = "q8_0"\n'
    )
    monkeypatch.setattr(catalog, "recipes", lambda: {"base": tmp_path / "base.toml"})
    recipe = Recipe(source="base", format="gguf", trim=Trim(num_tokens=128, corpus=[str(corpus)]))
    made: list[str] = []
    real = build_module.make
    monkeypatch.setattr(build_module, "make", lambda name, *rest: made.append(name) or real(name, *rest))
    folder = build("small", recipe, catalog.home() / "small", silent)
    build("small", recipe, catalog.home() / "small", silent, is_forced=True, has_report=False)
    assert made == ["base", "small", "small"]
    assert folder.manifest.source.name == "base"
    assert folder.manifest.report is not None
    assert folder.manifest.report["source"]["name"] == "base"


def test_a_folder_for_the_result_that_cannot_be_made_is_one_sentence(tmp_path: Path, gguf_file: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        build("tiny", make_recipe(str(gguf_file), format="gguf"), tmp_path / "file" / "out", silent)


def test_trimming_alone_needs_the_format_already(tmp_path: Path, gguf_file: Path) -> None:
    with pytest.raises(UsageError, match="is gguf, not onnx; give a quantization"):
        build("tiny", make_recipe(str(gguf_file), trim=99), tmp_path / "out", silent)


def test_an_unknown_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="no-such-model"):
        build("x", make_recipe("no-such-model"), tmp_path / "out", silent)
    assert temporaries(tmp_path) == []
