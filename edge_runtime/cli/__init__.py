"""The `outrider` command: one file a command. The only place that reaches every package."""

from edge_runtime.cli.main import main

__all__ = ["main"]
