"""Libraries that only some answers need are not imported with the rest."""

import subprocess
import sys

MODULES = (
    "cloud_verifier.signing",
    "edge_runtime.cli.generate",
    "edge_runtime.cli.receipt",
    "edge_runtime.evidence",
    "edge_runtime.runtime",
    "outrider.receipt",
)


def test_grammars_and_signatures_are_loaded_when_first_used() -> None:
    program = f"import sys, {', '.join(MODULES)}; print({{'cryptography', 'llguidance'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
