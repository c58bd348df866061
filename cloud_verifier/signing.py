"""The verifier's key: signs what it chose, so that a device can show it to others. Made on first use, never sent.

Knows statements and a key file; nothing of sessions. `cryptography` is imported when a key is loaded.
"""

import os
import secrets
import stat
from pathlib import Path
from typing import Protocol

from outrider.errors import InvalidParameter, MissingExtra
from outrider.receipt import DOMAIN, Statement, to_sign

__all__ = ["Signer", "load_signer"]


class PrivateKey(Protocol):
    def sign(self, data: bytes) -> bytes: ...


class Signer:
    """`public_key` is 32 bytes of Ed25519. Equal statements have equal signatures."""

    def __init__(self, key: PrivateKey, public_key: bytes) -> None:
        self._key = key
        self.public_key = public_key

    def sign(self, statement: Statement) -> bytes:
        return self._key.sign(DOMAIN + to_sign(statement))


def load_signer(path: Path) -> Signer:
    """The signer whose key lies at `path`, made there on first use, readable by its owner alone.

    Raises InvalidParameter for a file that is no such key or that others may read, MissingExtra.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise MissingExtra('signatures need cryptography; run: pip install "outrider[server]"') from None
    try:
        if not path.exists():
            _make(path)
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise InvalidParameter(f"others may read the key {path}; run: chmod 600 {path}")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise InvalidParameter(f"the key {path} cannot be had ({error.strerror}); check its folder") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidParameter(f"{path} holds no private key; restore it, or move it away to get a new one") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidParameter(f"the key {path} is not of the kind Ed25519; move it away to get a new one")
    return Signer(key, key.public_key().public_bytes_raw())


def _make(path: Path) -> None:
    """Written whole under another name, then linked: of several processes one key wins, and none is seen half."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(new, path)
    except FileExistsError:
        return
    finally:
        new.unlink(missing_ok=True)
