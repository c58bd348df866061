"""`outrider verifier token`: who may use a verifier. Works on the file; a running service notices."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cloud_verifier.tokens import TokenFile
from edge_runtime.cli.output import console, print_json
from outrider import catalog

__all__ = ["COMMANDS", "token_file"]

File = Annotated[Path | None, typer.Option("--tokens", help="The file of tokens.", show_default="beside the models")]


def token_file(path: Path | None) -> TokenFile:
    """The file named, or the one beside the store."""
    home = catalog.home()
    return TokenFile(path or home.with_name(home.name + "-tokens.json"))


def add(
    name: Annotated[str, typer.Argument(help="What to call it here, e.g. the device.")],
    tokens: File = None,
) -> None:
    """Make a token and print it, this once. Only its hash is kept.

    Example: outrider verifier token add laptop > laptop.token
    """
    token, secret = token_file(tokens).add(name)
    sys.stdout.write(secret + "\n")
    console.print(f"token {name} has the credential {token.id}; keep the token itself, it is not shown again")


def list_tokens(
    tokens: File = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the tokens: names, credentials as in logs and metrics, and when they were made.

    Example: outrider verifier token list
    """
    file = token_file(tokens)
    rows = [{"name": token.name, "credential": token.id, "created": token.created} for token in file.tokens()]
    if json:
        print_json({"file": str(file.path), "tokens": rows})
        return
    for row in rows:
        sys.stdout.write("  ".join(row.values()) + "\n")
    if not rows:
        console.print(f"no tokens in {file.path}; make one with: outrider verifier token add NAME")


def revoke(name: Annotated[str, typer.Argument(help="The token's name.")], tokens: File = None) -> None:
    """Forget a token. A running service ends its sessions within seconds.

    Example: outrider verifier token revoke laptop
    """
    token_file(tokens).revoke(name)
    console.print(f"token {name} is revoked")


COMMANDS = {"add": add, "list": list_tokens, "revoke": revoke}
