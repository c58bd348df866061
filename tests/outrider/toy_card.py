"""A card of a file that the test's hub has, called `toy`."""

import hashlib

from outrider.card import Card, HubSource, PypiSource

__all__ = ["toy_card"]


def toy_card(data: bytes, pypi: PypiSource | None = None) -> Card:
    return Card(
        kind="card",
        name="toy",
        summary="",
        licence="none",
        file="toy.gguf",
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        hub=HubSource("o/r", "w.gguf"),
        pypi=pypi,
    )
