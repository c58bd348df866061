"""Every known threat and fault has a test that exists, or a sentence that says why it needs none."""

import pytest

from tests.threats import IDS, PAGE, main, rows

ROWS = rows(PAGE.read_text())


def test_every_row_is_there_once() -> None:
    assert [row.id for row in ROWS] == IDS


def test_every_row_names_tests_that_exist_or_a_reason() -> None:
    assert {row.id: row.missing for row in ROWS if row.missing} == {}
    assert [row.id for row in ROWS if not row.tests and not row.is_reasoned] == []


def test_a_test_that_is_not_there_and_an_empty_row_are_found() -> None:
    [gone, empty] = rows("| T1 | x | `tests/test_threats.py::test_nothing` |\n| T2 | x | later |\n")
    assert gone.missing == ["tests/test_threats.py::test_nothing"]
    assert not empty.tests
    assert not empty.is_reasoned


def test_the_script_prints_the_coverage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    assert f"{len(IDS)} of {len(IDS)} rows" in capsys.readouterr().out
