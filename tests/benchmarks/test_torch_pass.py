"""The measurement of the torch engine's passes, run small on the CPU."""

import re
from pathlib import Path

import msgspec
import pytest

from benchmarks.machines import Curve


def test_it_prints_a_time_for_every_batch_and_draft_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import torch_pass

    file = tmp_path / "curve.json"

    given = "--device cpu --size tiny --batches 1 3 --drafts 0 2 5 --context 20 --repeats 1 --threads 1"
    assert torch_pass.main([*given.split(), "--json", str(file)]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert table[0] == "| sessions | 0 drafts | 2 drafts | 5 drafts |"
    for line, batch in zip(table[2:], (1, 3), strict=True):
        assert re.fullmatch(rf"\| {batch} (\| \d+\.\d\d ms ){{3}}\|", line)
    curve = msgspec.json.decode(file.read_bytes(), type=Curve)
    assert {batch: list(rows) for batch, rows in curve.measured.items()} == {1: [1, 3, 6], 3: [1, 3, 6]}
    assert f"| 3 | {curve(3, 3):.2f} ms |" in "\n".join(table)
