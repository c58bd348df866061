"""Whose tokenizer a device takes where no target is named."""

import re
from pathlib import Path

import pytest

from edge_runtime.parts import DEFAULT_DRAFTER, DEFAULT_TARGET, tokenizer_source
from outrider import catalog
from outrider.errors import NotHere
from outrider.manifest import Source, file_sha256
from tests.export.models import write_gguf


def test_it_is_the_default_s_or_what_all_models_here_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def store(name: str, fingerprint: str) -> None:
        file = write_gguf(tmp_path / name / "model.gguf")
        catalog.install_gguf(file, file.parent, name=name, licence="none", source=Source("random", file_sha256(file)))
        manifest = file.parent / "manifest.json"
        manifest.write_text(re.sub(r'("tokenizer_fingerprint": ")\w+', rf"\g<1>{fingerprint}", manifest.read_text()))

    monkeypatch.setenv("OUTRIDER_HOME", str(tmp_path))
    assert tokenizer_source("auto") == DEFAULT_TARGET  # which `find` then says how to get
    store("small", "one")
    store("large", "one")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    assert tokenizer_source("lookup") in ("small", "large")
    assert tokenizer_source("none", "one") in ("small", "large")
    store("other", "two")
    with pytest.raises(NotHere, match="--target"):
        tokenizer_source("none")
    assert tokenizer_source("lookup+other") == "other"
    store(DEFAULT_DRAFTER, "three")
    assert tokenizer_source("none") == DEFAULT_DRAFTER
