"""`outrider receipt`: what a verifier stands by. Loads no model."""

import re
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.cli.output import print_json
from outrider.errors import InvalidParameter
from outrider.receipt import Receipt, check, key_name

__all__ = ["COMMANDS"]

MAX_BYTES = 64 * 2**20


def check_receipt(
    file: Annotated[Path, typer.Argument(help="The receipt.")],
    key: Annotated[str | None, typer.Option(help="The verifier's public key: accept no other. 64 digits.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one object instead of text.")] = False,
) -> None:
    """Say whether FILE is what a verifier signed. Exit status: 0 valid, 1 not, 2 asked wrongly.

    Without --key it says whose key signed; compare that with the one the verifier's operator shows you.

    Example: outrider receipt check answer.receipt
    """
    if key is not None and not re.fullmatch("[0-9a-fA-F]{64}", key):
        raise InvalidParameter("--key is no public key; give 64 hexadecimal digits")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InvalidParameter(f"{file} is too large for a receipt; give another file")
        data = file.read_bytes()
    except OSError as error:
        raise InvalidParameter(f"{file} cannot be read ({error.strerror}); give a receipt's file") from None
    receipt = check(data, key)
    if json:
        print_json({"valid": True, "is_key_given": key is not None, "receipt": receipt})
    else:
        print("\n".join(_lines(receipt, is_key_given=key is not None)))


def _lines(receipt: Receipt, *, is_key_given: bool) -> list[str]:
    statement, counts, public_key = receipt.statement, receipt.counts, receipt.public_key or ""
    lines = [
        f"valid: {len(statement.token_ids)} tokens from position {statement.start}, finished by {statement.finish}",
        f"target {statement.target}",
        f"signed by key {public_key} ({key_name(public_key)})"
        + ("" if is_key_given else "; nobody vouches for it here: compare it with the verifier's own"),
    ]
    if receipt.earlier_ids:
        lines.append(f"not signed: the {len(receipt.earlier_ids)} tokens before, from sessions that broke off")
    lines.append(
        f"by the device's word: {counts.drafted} drafted, {counts.accepted} accepted, {counts.corrected} corrected, "
        f"{counts.provisional} provisional, {counts.retracted} retracted, "
        + ("energy unknown" if receipt.energy.joules is None else f"{receipt.energy.joules:.1f} J")
    )
    return lines


COMMANDS = {"check": check_receipt}
