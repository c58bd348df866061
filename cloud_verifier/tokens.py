"""The bearer tokens that let devices in: a JSON file of their SHA-256 hashes, written whole or not at all.

A token is 256 random bits, shown once when it is made. Everything else in the service knows its credential only: an id
made here, never the name an operator gave. The file is read again when it changed, so tokens come and go while a
service runs; one that cannot be read lets nobody in. Knows nothing of HTTP.
"""

import datetime
import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec

from outrider.errors import InvalidParameter

__all__ = ["Token", "TokenFile"]

logger = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
WRITABLE_BY_OTHERS = 0o022
Stamp = tuple[int, int, int]


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str  # the credential
    name: str
    sha256: str
    created: str


class _Contents(msgspec.Struct, forbid_unknown_fields=True):
    version: int = 1
    tokens: list[Token] = []


class TokenFile:
    """`path` as it is on the disk now. Methods that read raise InvalidParameter for a file that is none of ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: Stamp | None = None
        self._live: dict[str, bytes] = {}  # digest by credential
        self._revoked: list[str] = []

    def tokens(self) -> list[Token]:
        """All tokens, oldest first; none where there is no file."""
        try:
            if self.path.stat().st_mode & WRITABLE_BY_OTHERS:
                raise InvalidParameter(f"others may write to {self.path}; run: chmod 600 {self.path}")
            contents = msgspec.json.decode(self.path.read_bytes(), type=_Contents)
            for token in contents.tokens:
                bytes.fromhex(token.sha256)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise InvalidParameter(f"{self.path} is no file of tokens ({error}); make a new one") from None
        if contents.version != 1:
            raise InvalidParameter(f"{self.path} has version {contents.version}; this program reads version 1")
        return contents.tokens

    def add(self, name: str) -> tuple[Token, str]:
        """A new token and, this once, its secret. Raises InvalidParameter for a name that is odd or taken."""
        if not NAME.fullmatch(name):
            raise InvalidParameter(f"{name!r} is no name for a token; use letters, digits, dots, dashes, at most 64")
        secret = secrets.token_urlsafe(32)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        token = Token(secrets.token_hex(8), name, _digest(secret.encode()).hex(), now)

        def append(tokens: list[Token]) -> None:
            if any(other.name == name for other in tokens):
                raise InvalidParameter(f"there is a token {name} already; revoke it or choose another name")
            tokens.append(token)

        self._change(append)
        return token, secret

    def revoke(self, name: str) -> None:
        """Forget a token. Raises InvalidParameter when there is none of that name."""

        def remove(tokens: list[Token]) -> None:
            if all(token.name != name for token in tokens):
                raise InvalidParameter(f"there is no token {name!r}; run: outrider verifier token list")
            tokens[:] = [token for token in tokens if token.name != name]

        self._change(remove)

    def _change(self, change: Callable[[list[Token]], None]) -> None:
        """The new file is the lock: it is made exclusively before the old one is read, and then takes its place."""
        new = self.path.with_name(self.path.name + ".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise InvalidParameter(f"another command is writing; try again, or remove {new} if none is") from None
        except OSError as error:
            raise InvalidParameter(f"{self.path} cannot be written ({error.strerror}); choose another file") from None
        try:
            with open(handle, "wb") as file:
                tokens = self.tokens()
                change(tokens)
                file.write(msgspec.json.format(msgspec.json.encode(_Contents(tokens=tokens))) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise InvalidParameter(f"{self.path} cannot be written ({error.strerror}); choose another file") from None
        except BaseException:
            new.unlink(missing_ok=True)
            raise

    def credential_of(self, secret: bytes) -> str | None:
        """Whose token this is, if it is one now. Takes as long for a wrong one as for any right one."""
        self._reload()
        digest = _digest(secret)
        found = None
        for credential, known in self._live.items():
            if hmac.compare_digest(digest, known):
                found = credential
        return found

    def is_live(self, credential: str) -> bool:
        self._reload()
        return credential in self._live

    def take_revoked(self) -> list[str]:
        """The credentials that ended since the last call."""
        self._reload()
        revoked, self._revoked = self._revoked, []
        return revoked

    def _reload(self) -> None:
        stamp = self._stamp_now()
        if stamp == self._stamp and stamp is not None:
            return
        try:
            live = {token.id: bytes.fromhex(token.sha256) for token in self.tokens()}
        except InvalidParameter as error:
            if stamp != self._stamp:
                logger.error("nobody is let in: %s", error)
            live = {}
        self._stamp = stamp
        self._revoked += self._live.keys() - live.keys()
        self._live = live

    def _stamp_now(self) -> Stamp | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_ctime_ns, found.st_size  # ctime: it tells of chmod too


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
