"""Prompts for gaps: their order, what is cut where the room is short, and that a key changes their end alone."""

import statistics
from itertools import pairwise

import pytest

from benchmarks.typist import keys
from edge_runtime.drafters.base import shared_length
from outrider import catalog
from outrider.infill import Gap, gap_prompt, infill_ids
from outrider.manifest import Source, file_sha256, load_folder
from outrider.tokens import TextCodec
from tests.export.models import write_gguf

MARKS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>", "<|repo_name|>")
ROOM = 4096
TEXT = '"""Sums."""\n\nimport math\n\n\ndef first():\n    return 1\n\n\ndef second(a):\n    b = a\n    return b + fir'
BEHIND = "\n\n\ndef third():\n    pass\n"


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    folder = tmp_path_factory.mktemp("store") / "tiny"
    file = write_gguf(folder / "tiny.gguf", marks=MARKS)
    catalog.install_gguf(file, folder, name="tiny", licence="none", source=Source("random", file_sha256(file)))
    return TextCodec(load_folder(folder))


def written(codec: TextCodec, ids: list[int]) -> str:
    names = {token_id: text for text, token_id in codec.control_ids.items() if text in MARKS}
    return "".join(names.get(token_id) or codec.bytes_of(token_id).decode() for token_id in ids)


def test_the_block_that_is_written_stands_last(codec: TextCodec) -> None:
    prompt = gap_prompt(codec, Gap(TEXT, BEHIND), ROOM)
    before, _, block = TEXT.partition("def second")
    assert prompt.stub == " fir"
    assert not prompt.is_cut
    assert written(codec, prompt.ids) == (
        f"<|fim_prefix|>{before}<|fim_suffix|>{BEHIND}<|fim_middle|>def second{block.removesuffix(' fir')}"
    )


def test_other_files_stand_first_as_a_project(codec: TextCodec) -> None:
    prompt = gap_prompt(codec, Gap("x", "", [("a.py", "a = 1\n"), ("b.py", "b = 2\n")]), ROOM)
    assert written(codec, prompt.ids).startswith(
        "<|repo_name|>project\n<|file_sep|>a.py\na = 1\n<|file_sep|>b.py\nb = 2\n<|file_sep|>this file\n<|fim_prefix|>"
    )


def test_every_text_is_the_prompt_and_its_stub(codec: TextCodec) -> None:
    for end in range(len(TEXT) + 1):
        prompt = gap_prompt(codec, Gap(TEXT[:end], BEHIND), ROOM)
        before, _, rest = written(codec, prompt.ids).removeprefix("<|fim_prefix|>").partition("<|fim_suffix|>")
        behind, _, begun = rest.partition("<|fim_middle|>")
        assert before + begun + prompt.stub == TEXT[:end]
        assert behind == BEHIND


def test_a_key_changes_the_end_alone(codec: TextCodec) -> None:
    start = TEXT.index("    b = a")
    lists = [gap_prompt(codec, Gap(TEXT[:end], BEHIND), ROOM).ids for end in range(start, len(TEXT))]
    assert all(shared_length(ids, after) >= len(ids) - 8 for ids, after in pairwise(lists))


def test_over_a_session_less_is_read_than_in_the_trained_order(codec: TextCodec) -> None:
    """Tokens of each key's prompt that the one before did not begin with."""
    typed = keys()
    ours = [gap_prompt(codec, Gap(key.before, key.behind), ROOM).ids for key in typed]
    trained = [infill_ids(codec, key.before, key.behind) for key in typed]
    assert median_read(ours) <= 3
    assert median_read(trained) > 100
    assert sum(map(len, ours)) <= sum(map(len, trained))


def median_read(lists: list[list[int]]) -> float:
    return statistics.median(len(ids) - shared_length(last, ids) for last, ids in pairwise(lists))


@pytest.mark.parametrize("text", ["x = \u00e4\u00f6\u00fc", "", "x" * 100, "\n"])
def test_what_cannot_be_cut_off_stays(codec: TextCodec, text: str) -> None:
    assert gap_prompt(codec, Gap(text, ""), ROOM).stub == ""


def test_what_does_not_fit_is_left_out_from_afar(codec: TextCodec) -> None:
    prefix = "".join(f"line_{number} = {number}\n" for number in range(300))
    files = [("old.py", "old = 1\n" * 500), ("new.py", "new = 1\n")]
    room = 800
    prompt = gap_prompt(codec, Gap(prefix + "last", BEHIND, files), room)
    text = written(codec, prompt.ids)
    assert prompt.is_cut
    assert len(prompt.ids) <= room
    assert "old = 1" not in text
    assert "line_0 =" not in text
    assert "line_298 = 298\n" in text
    assert BEHIND in text
    short = gap_prompt(codec, Gap("x = 1\n", BEHIND, files), room)
    assert "new.py\nnew = 1" in written(codec, short.ids)
    assert short.is_cut
    assert "old.py" not in written(codec, short.ids)


def test_a_prefix_that_is_cut_begins_where_it_began_for_many_keys(codec: TextCodec) -> None:
    prefix = "".join(f"line_{number} = {number}\n" for number in range(120))
    starts = [tuple(gap_prompt(codec, Gap(prefix + "y = 1\n" * n, BEHIND), 800).ids[1:5]) for n in range(0, 60, 3)]
    assert 1 < len(set(starts)) <= 4


@pytest.mark.parametrize("room", [800, 2400])  # less than the block has, and more
def test_of_a_line_longer_than_a_block_the_end_is_behind_the_suffix(codec: TextCodec, room: int) -> None:
    texts = ["x = 1; " * 320 + "y" * number for number in range(0, 100, 5)]
    prompts = [gap_prompt(codec, Gap(text, BEHIND), room) for text in texts]
    for text, prompt in zip(texts, prompts, strict=True):
        begun = written(codec, prompt.ids).partition("<|fim_middle|>")[2]
        assert 0 < len(begun) <= 2000
        assert text.endswith(begun + prompt.stub)
        assert len(prompt.ids) <= room
    middles = [tuple(prompt.ids[prompt.ids.index(codec.control_ids["<|fim_middle|>"]) :][:9]) for prompt in prompts]
    assert 1 <= len(set(middles)) <= 4  # it begins where it began for many keys
