"""The rows of docs/security.md: what each names, and whether it is there. Run it to print the coverage."""

import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "security.md"
IDS = [*(f"T{number}" for number in range(1, 25)), *(f"F{number}" for number in range(1, 24))]
ROW = re.compile(r"^\| ([TF]\d+) \| (.+?) \| (.+) \|$", re.MULTILINE)
DEFINED = re.compile(r"^ *(?:async def|def|class) (\w+)", re.MULTILINE)
NODE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@dataclass(frozen=True)
class Row:
    id: str
    what: str
    answer: str

    @property
    def tests(self) -> list[tuple[str, str]]:
        """(file, function or class) of each test named."""
        return NODE.findall(self.answer)

    @property
    def missing(self) -> list[str]:
        return [f"{file}::{name}" for file, name in self.tests if name not in tests_of(file)]

    @property
    def is_reasoned(self) -> bool:
        """Whether what is left beside the tests is a sentence."""
        return len(NODE.sub("", self.answer).split()) >= 8


def rows(text: str) -> list[Row]:
    return [Row(*cells) for cells in ROW.findall(text)]


@cache
def tests_of(file: str) -> frozenset[str]:
    path = ROOT / file
    if not path.exists():
        return frozenset()
    return frozenset(DEFINED.findall(path.read_text()))


def main() -> int:
    found = rows(PAGE.read_text())
    missing = [name for row in found for name in row.missing]
    for row in found:
        kind = f"{len(row.tests)} tests" if row.tests else "a reason" if row.is_reasoned else "NOTHING"
        print(f"{row.id:4} {kind:9} {row.what}")
    tested = sum(bool(row.tests) for row in found)
    print(f"{len(found)} of {len(IDS)} rows: {tested} with tests, {len(found) - tested} with a reason alone")
    for name in missing:
        print(f"named and not there: {name}")
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
