"""What an operator may set of doors and of the service, with defaults. The verifier's bounds are in `limits.py`."""

import ssl
from dataclasses import dataclass
from typing import Protocol

from cloud_verifier.tokens import TokenFile
from outrider.errors import InvalidParameter

__all__ = ["DoorSettings", "Keys", "ServiceSettings"]


class Keys(Protocol):
    """The secrets that let somebody in."""

    def credential_of(self, secret: bytes) -> str | None:
        """Whose secret this is, if it is one now. Takes as long for a wrong one as for any right one."""

    def is_live(self, credential: str) -> bool:
        """Whether the credential is still let in."""


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """What holds for any HTTP server of ours. Raises InvalidParameter for a bound that is not above 0."""

    tokens: Keys | None = None  # who is let in; None: everybody
    is_public: bool = False  # without tokens, serve requests for other names than this machine's own
    tls: ssl.SSLContext | None = None
    max_connections: int = 1024  # of all clients
    max_connections_each: int = 256  # requests and sockets at once, of one credential
    requests_per_s: float = 100.0  # and sockets, of one credential; twice as many at once
    messages_per_s: float = 1000.0  # on one socket; twice as many at once
    grace_s: float = 30.0  # that what is open may go on after SIGTERM
    header_s: float = 10.0  # for a TLS handshake, a request's head, a socket's first message
    body_s: float = 30.0  # for a request's body

    def __post_init__(self) -> None:
        for name in (
            "max_connections",
            "max_connections_each",
            "requests_per_s",
            "messages_per_s",
            "header_s",
            "body_s",
        ):
            if not getattr(self, name) > 0:
                raise InvalidParameter(f"{name} is {getattr(self, name)}; give a number above 0")


@dataclass(frozen=True, slots=True)
class ServiceSettings(DoorSettings):
    tokens: TokenFile | None = None
    model: str = ""  # the target's name, to show
    engine: str = ""  # and that of what runs it
