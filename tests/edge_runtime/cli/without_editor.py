"""`outrider` where the line editor is not installed."""

import sys

from edge_runtime.cli import main

for name in [name for name in sys.modules if name.partition(".")[0] == "prompt_toolkit"]:
    del sys.modules[name]
sys.modules["prompt_toolkit"] = None  # type: ignore[assignment]
main()
