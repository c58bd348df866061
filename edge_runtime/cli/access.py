"""What a device shows a verifier, and what it trusts: a token and certificates, from files and the environment."""

import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from outrider.errors import InvalidParameter

__all__ = ["TOKEN_VARIABLE", "AllowInsecure", "CaFile", "ClientCert", "TokenFile", "check_named", "read_access"]

TOKEN_VARIABLE = "OUTRIDER_TOKEN"  # noqa: S105  the name of a variable

# The options of every command that asks a verifier.
TokenFile = Annotated[
    Path | None,
    typer.Option(help="File that holds the verifier's token.", show_default=f"the token in {TOKEN_VARIABLE}"),
]
CaFile = Annotated[Path | None, typer.Option(help="Trust verifiers of this authority, PEM.")]
ClientCert = Annotated[Path | None, typer.Option(help="Certificate and key to show the verifier, PEM.")]
AllowInsecure = Annotated[bool, typer.Option("--allow-insecure", help="Send the token to another machine without TLS.")]


@dataclass(frozen=True)
class Access:
    token: str = ""
    tls: ssl.SSLContext | None = None  # None: what the system trusts, and nothing to show


def read_access(
    verifier: str | None, token_file: Path | None, ca_file: Path | None, client_cert: Path | None, *, is_insecure: bool
) -> Access:
    """What the options say of `verifier`, and the environment. Raises InvalidParameter, also for options of none."""
    check_named(verifier, token_file=token_file, ca_file=ca_file, client_cert=client_cert)
    if verifier is None:
        return Access()
    return Access(_token(token_file, verifier, is_insecure=is_insecure), _tls(ca_file, client_cert))


def check_named(verifier: str | None, **options: object) -> None:
    """Options that are about a verifier say nothing without one. Raises InvalidParameter."""
    given = next((name for name, value in options.items() if value), None)
    if verifier is None and given is not None:
        raise InvalidParameter(f"--{given.replace('_', '-')} is for a verifier; give --verifier too")


def _token(file: Path | None, verifier: str, *, is_insecure: bool) -> str:
    """The token in `file`, else in the environment, else none.

    It goes to another machine in clear only with the user's word.
    """
    try:
        token = os.environ.get(TOKEN_VARIABLE, "") if file is None else file.read_text("ascii")
    except (OSError, ValueError):
        raise InvalidParameter(f"{file} cannot be read as a token; write it there as it was printed") from None
    token = token.strip()
    if not all("!" <= character <= "~" for character in token) or (file is not None and not token):
        raise InvalidParameter("the token is not one; give it as `outrider verifier token add` printed it")
    if token and not is_insecure and not _is_private(verifier):
        raise InvalidParameter("the token would travel in clear; use https://, or say --allow-insecure")
    return token


def _is_private(url: str) -> bool:
    """Whether nobody on the way can read along. An address that is none is left to the link to refuse."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "ws") or parts.hostname in (None, "localhost"):
            return True
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _tls(ca_file: Path | None, client_cert: Path | None) -> ssl.SSLContext | None:
    """What to trust instead of the system's authorities, and what to show."""
    if ca_file is None and client_cert is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if client_cert is not None:
            context.load_cert_chain(client_cert, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InvalidParameter(f"the TLS files cannot be used ({error}); give PEM files") from None
    return context


def _no_password() -> str:
    raise ValueError("the key asks for a password")
