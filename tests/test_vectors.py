"""The vectors that other languages test against are what Python makes now."""

import json

import numpy as np
import pytest

from outrider.choice import gumbel_noise
from tests.vectors import FILE, vectors


def test_the_file_is_what_python_makes() -> None:
    kept, made = json.loads(FILE.read_text()), vectors()
    for left, right in zip(kept["noise"], made["noise"], strict=True):
        # of a logarithm the last bit is the machine's
        assert left.pop("noise") == pytest.approx(right.pop("noise"), rel=1e-12)
    assert kept == json.loads(json.dumps(made)), "run: python -m tests.vectors"


def test_the_protocol_s_page_has_values_of_this_noise() -> None:
    page = (FILE.parent.parent / "docs" / "protocol.md").read_text()
    for value in gumbel_noise(42, 1000, np.array([0, 1, 2, 151935])):
        assert str(value) in page
