"""The `outrider` command: one file a command. The only place that reaches every package.

Its entry point imports the rest inside, so that Ctrl-C is told in one line however early it comes.
"""

import os
import sys

__all__ = ["main"]

INTERRUPTED = 130  # the exit status that Ctrl-C ends in, wherever it falls


def main() -> None:
    """Entry point of `outrider`."""
    fill_closed_streams()
    try:
        from edge_runtime.cli.frame import run

        run()
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        sys.stderr.write("outrider: interrupted [interrupted]\n")
        sys.exit(INTERRUPTED)


def fill_closed_streams() -> None:
    """A standard stream that the caller closed becomes the null device: its number would be the next file's."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
