"""The `outrider` command: one file a command. The only place that reaches every package.

Its entry point imports the rest inside, so that Ctrl-C is told in one line however early it comes.
"""

import sys

from edge_runtime.cli.streams import prepare_streams

__all__ = ["main"]

INTERRUPTED = 130  # the exit status that Ctrl-C ends in, wherever it falls


def main() -> None:
    """Entry point of `outrider`."""
    prepare_streams()
    try:
        from edge_runtime.cli.frame import run

        run()
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        sys.stderr.write("outrider: interrupted [interrupted]\n")
        sys.exit(INTERRUPTED)
