"""Addresses of verifiers: what is told of one that cannot be."""

import pytest

from edge_runtime.links import WebSocketLink
from outrider.errors import InvalidParameter


@pytest.mark.parametrize("scheme", ["", "http://", "wss://"])
def test_a_password_in_an_address_is_refused_and_not_told(scheme: str) -> None:
    with pytest.raises(InvalidParameter, match="no name and no password") as refused:
        WebSocketLink(f"{scheme}user:hunter2@127.0.0.1:8700")
    assert "hunter2" not in str(refused.value)
