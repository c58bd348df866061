"""Tuned settings that are kept: which is used where, and that none of them can stop an answer."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_runtime.knobs import Knobs
from edge_runtime.tuning import stored
from edge_runtime.tuning.compare import Comparison
from edge_runtime.tuning.stored import Tuned, check_name, choose, machine, save
from outrider import catalog
from outrider.errors import InvalidParameter

TUNED = Tuned("mine", "t" * 64, machine(), "latency", "", Knobs("lookup", max_drafts=7), "", Comparison(ratio=0.9))


def test_what_was_kept_is_used_where_it_fits() -> None:
    path = save(TUNED)
    assert path == catalog.home() / "tuned" / "mine.json"
    assert choose("mine", target=TUNED.target) == (TUNED, "")
    assert choose("auto", target=TUNED.target) == (TUNED, "")
    assert choose("off", target=TUNED.target) == (None, "")
    assert choose("auto", target="u" * 64) == (None, "")  # nothing was meant for it
    assert choose("auto", target=TUNED.target, verifier="http://127.0.0.1:1") == (None, "")


def test_with_a_verifier_it_is_the_one_it_was_found_with() -> None:
    linked = msgspec.structs.replace(TUNED, name="linked", verifier="http://v:1")
    save(linked)
    for target in (TUNED.target, ""):
        assert choose("auto", target=target, verifier="http://v:1") == (linked, "")
    assert choose("auto", target="u" * 64, verifier="http://v:1") == (None, "")


def test_of_several_the_one_for_latency_comes_first() -> None:
    for name, goal in (("a", "energy"), ("b", "verifier-cost"), ("c", "latency")):
        save(msgspec.structs.replace(TUNED, name=name, goal=goal))
    chosen, _ = choose("auto", target=TUNED.target)
    assert chosen is not None
    assert chosen.name == "c"


def changed(**fields: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


@pytest.mark.parametrize("how", ["mine", "auto"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_text("{"), "cannot be read"),
        (lambda path: path.write_bytes(b"\xff\x00" * 100), "cannot be read"),
        (changed(surplus=1), "cannot be read"),
        (changed(knobs={"drafter": 3}), "cannot be read"),
        (changed(knobs={"max_drafts": 10**9}), "max_drafts is 1000000000"),
        (changed(knobs={"min_reach": -1.0}), "min_reach is -1"),
        (changed(knobs={"verifier_threads": 4096}), "verifier_threads is 4096"),
        (changed(knobs={"drafter": "gone"}), "gone"),
        (changed(knobs={"drafter": "lookup+../../etc"}), "cannot be used"),
        (changed(drafter="f" * 64), "has changed since"),
    ],
)
def test_a_damaged_one_is_a_line_and_the_defaults(how: str, damage: Callable[[Path], None], words: str) -> None:
    damage(save(TUNED))
    tuned, notice = choose(how, target=TUNED.target)
    assert tuned is None
    assert words in notice
    assert "the defaults are used" in notice
    assert "\n" not in notice


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"machine": "another, 64 cores"}, "another machine"), ({"target": "u" * 64}, "another target")],
)
def test_a_foreign_one_is_told_to_who_named_it_and_passed_over_else(fields: dict[str, str], words: str) -> None:
    changed(**fields)(save(TUNED))
    tuned, notice = choose("mine", target=TUNED.target)
    assert tuned is None
    assert words in notice
    assert choose("auto", target=TUNED.target) == (None, "")


def test_a_sound_one_is_used_beside_a_damaged_one() -> None:
    save(msgspec.structs.replace(TUNED, name="a")).write_text("{")
    save(TUNED)
    assert choose("auto", target=TUNED.target) == (TUNED, "")


@pytest.mark.parametrize("name", ["nobody", "../mine", "", "a/b", "x" * 80])
def test_a_name_that_nothing_has_is_a_line_and_the_defaults(name: str) -> None:
    tuned, notice = choose(name, target=TUNED.target)
    assert tuned is None
    assert "there is no tuned setting" in notice


@pytest.mark.parametrize("name", ["auto", "off", "../mine", "", "-x", "x" * 80])
def test_names_that_cannot_be_are_refused_before_anything_is_measured(name: str) -> None:
    with pytest.raises(InvalidParameter, match="cannot name"):
        check_name(name)


@pytest.mark.parametrize("target", ["", "tiny", "a/b", "../my model", "x" * 100, ".é"])
def test_any_target_has_a_name_to_keep_its_setting_under(target: str) -> None:
    name = stored.default_name(target, "verifier-cost")
    check_name(name)
    assert name.endswith("-verifier-cost")


def test_a_disk_that_is_full_leaves_the_old_one_and_nothing_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(TUNED)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"os.{call}", full)
            with pytest.raises(InvalidParameter, match="no space"):
                save(msgspec.structs.replace(TUNED, goal="energy"))
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        assert path.read_bytes() == before


def test_a_store_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OUTRIDER_HOME", str(tmp_path / "file"))
    with pytest.raises(InvalidParameter, match="cannot be written"):
        save(TUNED)
    assert stored.stored() == []
