"""What README and the pages promise is there: commands, options, names, examples, links."""

import doctest
import functools
import importlib
import io
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from docs import reference
from edge_runtime.cli import main
from edge_runtime.cli.frame import GROUPS
from outrider import catalog

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^outrider (\w+)(.*?)(?:#.*)?$", re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    shell = re.findall(r"```sh\n(.*?)```", "\n".join(page.read_text() for page in PAGES), re.DOTALL)
    return sorted({(name, rest.strip()) for block in shell for name, rest in COMMAND.findall(block)})


@functools.cache
def help_of(*words: str) -> str:
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as shown:
        patch.setattr(sys, "argv", ["outrider", *words, "--help"])
        patch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 0
    return shown.getvalue()


@pytest.mark.parametrize(("name", "rest"), commands())
def test_commands_and_their_options_exist(name: str, rest: str) -> None:
    words = [name, *rest.split()]
    depth = max((len(group.split()) + 1 for group in GROUPS if words[: len(group.split())] == group.split()), default=1)
    shown = help_of(*words[:depth])
    for option in re.findall(r"--[a-z-]+", rest):
        assert option in shown


def test_models_named_in_the_pages_are_known() -> None:
    known = {*catalog.cards(), *catalog.recipes()}
    text = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"\b(?:qwen2\.5|smollm2|gemma-3)[\w.-]*\w", text))
    assert named
    assert named <= known


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    num_anchors = 0
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, anchor = target.partition("#")
            there = page.parent / path if path else page
            assert there.exists(), f"{page.name}: {target}"
            if anchor:
                assert anchor in anchors(there), f"{page.name}: {target}"
                num_anchors += 1
    assert num_anchors > 5


def test_every_page_is_linked_from_readme_or_a_page_that_is() -> None:
    found: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page.suffix == ".md" and page not in found:
            found.add(page)
            paths = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())}
            there = [(page.parent / path).resolve() for path in paths if path]
            waiting += [each for path in there for each in (path.glob("*.md") if path.is_dir() else [path])]
    assert set(PAGES) <= found


def test_the_reference_is_what_the_docstrings_say() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run: make docs"


def test_make_targets_named_in_the_pages_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"(?:^|`)make ([\w-]+)", text, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_benchmarks_named_in_the_pages_have_the_options_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    named = re.findall(r"python -m (benchmarks\.\w+)([^`\n#]*)", text)
    assert "benchmarks.torch_pass" in {module for module, _ in named}
    for module, rest in named:
        with pytest.raises(SystemExit):
            importlib.import_module(module).main(["--help"])
        shown = capsys.readouterr().out
        assert all(option in shown for option in re.findall(r"--[a-z-]+", rest)), (module, rest)


@pytest.mark.parametrize(
    "module",
    [
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
        for package in ("outrider", "cloud_verifier", "edge_runtime", "export", "benchmarks")
        for path in sorted((ROOT / package).rglob("*.py"))
        if ">>> " in path.read_text()
    ],
)
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_version_is_in_the_changelog() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert f"## {version[1]}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.weights
def test_the_python_example_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(example, "README.md", "exec"), {"__name__": "example"})
    assert len(capsys.readouterr().out) > 20
