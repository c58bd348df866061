import hashlib
import json
import os
import re
from pathlib import Path

import msgspec
import pytest

from outrider import catalog
from outrider.errors import InvalidModel, NotHere, UnknownModel
from outrider.manifest import Source, file_sha256
from tests.hf_folder import write_hf_folder
from tests.toy_gguf import SPECIALS, toy_metadata, toy_model, write_model

ROOT = Path(__file__).parents[2]


def install(name: str = "mine") -> Path:
    folder = catalog.store_folder(name)
    file = write_model(folder / "m.gguf")
    catalog.install_gguf(file, folder, name=name, licence="none", source=Source(name, file_sha256(file)))
    return folder


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OUTRIDER_HOME", str(tmp_path / "here"))
    assert catalog.home() == tmp_path / "here"
    monkeypatch.delenv("OUTRIDER_HOME")
    assert catalog.home() == ROOT / "models" / "store"  # a checkout keeps its models to itself
    monkeypatch.setattr("outrider.catalog.checkout", lambda: None)  # as of a wheel
    assert catalog.home().name == "outrider"


def test_finds_what_is_in_the_store() -> None:
    install()
    install("owner/repo")
    assert catalog.find("mine").path == catalog.home() / "mine"
    assert catalog.find("owner/repo").path == catalog.home() / "owner--repo"
    assert list(catalog.stored()) == ["mine", "owner/repo"]


def test_a_card_that_is_not_here_names_the_command() -> None:
    with pytest.raises(NotHere, match="run: outrider pull smollm2-135m-instruct"):
        catalog.find("smollm2-135m-instruct")


def test_a_recipe_that_is_not_here_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "fast-drafter.toml"
    recipe.write_text('kind = "recipe"\n')
    monkeypatch.setattr("outrider.catalog.card_files", lambda: [recipe])
    assert catalog.recipes() == {"fast-drafter": recipe}
    with pytest.raises(NotHere, match="run: outrider export fast-drafter"):
        catalog.find("fast-drafter")
    with pytest.raises(NotHere, match="run: outrider export fast-drafter"):
        catalog.pull("fast-drafter")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownModel, match=r"nearest: .*qwen2\.5-coder-1\.5b-instruct"):
        catalog.find("qwen2.5-coder-1.5b")
    with pytest.raises(UnknownModel, match="see `outrider models`"):
        catalog.find("zzz")
    with pytest.raises(UnknownModel, match="outrider pull owner/repo"):
        catalog.find("owner/repo")


@pytest.mark.parametrize(
    "name", ["", "../x", "/etc/nothing", "a\x00b", "a" * 5000, "x/../../y", ".hidden", "local", "~no-such-user/x"]
)
def test_odd_names_are_unknown(name: str) -> None:
    with pytest.raises(UnknownModel):
        catalog.find(name)
    with pytest.raises(UnknownModel):
        catalog.pull(name)


def test_a_folder_by_path(tmp_path: Path) -> None:
    folder = install()
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert catalog.find(str(moved)).name == "mine"
    (moved / "m.gguf").unlink()
    with pytest.raises(InvalidModel, match=r"lacks m\.gguf"):
        catalog.find(str(moved))


def test_a_bare_file_gets_a_folder_and_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_model(tmp_path / "my.gguf")
    found = catalog.find(str(file))
    assert found.path.parent == catalog.home() / "local"
    assert found.model_file.resolve() == file.resolve()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.gguf"]
    with monkeypatch.context() as patched:
        patched.setattr("outrider.catalog.file_sha256", None)
        assert catalog.find(str(file)) == found
    write_model(file, toy_metadata(llama__context_length=128))
    os.utime(file, ns=(1, 1))
    assert catalog.find(str(file)).manifest.max_context == 128


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"GGUF", toy_model()[:-1]])
def test_a_file_that_is_no_model(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "my.gguf"
    file.write_bytes(content)
    with pytest.raises(InvalidModel, match=re.escape(f"{file} is not a")):
        catalog.find(str(file))
    assert list(catalog.home().rglob("*")) == []


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="is no model folder"):
        catalog.find(str(tmp_path))
    install()
    for content in (b"{", b'{"name": "\xff"}', b'{"x": ' + b"[" * 100_000):
        (catalog.home() / "mine" / "manifest.json").write_bytes(content)
        with pytest.raises(InvalidModel, match="cannot be read"):
            catalog.find("mine")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b", "..", "m\0.gguf"])
@pytest.mark.parametrize("field", ["file", "files", "id_map", "embeddings"])
def test_a_manifest_names_files_of_its_folder_alone(field: str, name: str) -> None:
    folder = install()
    (folder.parent / "secret").write_text("not the model's")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[field] = {**manifest["files"], name: "0"} if field == "files" else name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidModel, match="no file of its folder"):
        catalog.find("mine")


def test_what_a_gguf_manifest_says() -> None:
    manifest = catalog.find(str(install())).manifest
    tokens = toy_metadata()["tokenizer.ggml.tokens"]
    assert manifest.format == "gguf"
    assert manifest.architecture == "llama"
    assert manifest.n_vocab == len(tokens)
    assert manifest.max_context == 64
    assert manifest.stop_ids == [SPECIALS.index("<|endoftext|>"), SPECIALS.index("<|im_end|>")]
    assert set(manifest.files) == {"m.gguf", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    for name, digest in manifest.files.items():
        assert file_sha256(catalog.home() / "mine" / name) == digest
    assert manifest.source.sha256 == hashlib.sha256(toy_model()).hexdigest()


@pytest.mark.parametrize(
    "changes", [{"llama__context_length": None}, {"llama__context_length": 0}, {"general__architecture": None}]
)
def test_a_gguf_file_that_does_not_say_enough(changes: dict[str, int | None], tmp_path: Path) -> None:
    file = write_model(tmp_path / "my.gguf", toy_metadata(**changes))
    with pytest.raises(InvalidModel, match=re.escape(f"{file} cannot be used: it says nothing usable about")):
        catalog.find(str(file))
    assert list(catalog.home().rglob("*")) == []


def test_a_hugging_face_folder(tmp_path: Path) -> None:
    source = write_hf_folder(tmp_path / "hf")
    (source / "pytorch_model.bin").write_bytes(b"pickled")
    found = catalog.find(str(source))
    manifest = found.manifest
    assert (manifest.format, manifest.file, manifest.architecture) == ("hf", ".", "llama")
    assert (manifest.n_vocab, manifest.max_context, manifest.stop_ids) == (300, 64, [0, 2, 7])
    assert "pytorch_model.bin" not in manifest.files
    assert (found.path / "chat_template.jinja").read_text() == "{{ bos_token }}hi"
    assert found.model_file.joinpath("model.safetensors").read_bytes() == b"weights"
    # the same vocabulary as the GGUF file's, so the same fingerprint
    assert manifest.tokenizer_fingerprint == catalog.find(str(install())).manifest.tokenizer_fingerprint
    assert catalog.find(str(source)) == found


def test_a_hugging_face_folder_that_wants_to_run_code(tmp_path: Path) -> None:
    source = write_hf_folder(tmp_path / "hf")
    config = json.loads((source / "config.json").read_text()) | {"auto_map": {"AutoModel": "evil.Model"}}
    (source / "config.json").write_bytes(msgspec.json.encode(config))
    with pytest.raises(InvalidModel, match=re.escape(f"{source} needs code of its own")):
        catalog.find(str(source))
    assert list(catalog.home().rglob("*")) == []


def test_a_pipe_is_no_model_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(InvalidModel, match="not a GGUF file"):
        catalog.find(str(tmp_path / "model.gguf"))
