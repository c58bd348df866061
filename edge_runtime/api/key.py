"""The endpoint's one optional key. It is kept as its hash, and compared in constant time."""

import hashlib
import hmac

from outrider.errors import InvalidParameter

__all__ = ["ApiKey"]

CREDENTIAL = "key"
SHORTEST = 16  # characters; a key that can be guessed is none


class ApiKey:
    """Raises InvalidParameter for a key that is short, or that no header can carry."""

    def __init__(self, secret: str) -> None:
        if len(secret) < SHORTEST or not all("!" <= character <= "~" for character in secret):
            raise InvalidParameter(
                f"the API key is not one; use at least {SHORTEST} letters, digits and signs, no space"
            )
        self._digest = hashlib.sha256(secret.encode()).digest()

    def credential_of(self, secret: bytes) -> str | None:
        is_key = hmac.compare_digest(hashlib.sha256(secret).digest(), self._digest)
        return CREDENTIAL if is_key else None

    def is_live(self, credential: str) -> bool:
        return credential == CREDENTIAL
