"""A device in a process of its own, to be killed: it says every event that its app hears.

Run as a program it is a fork server: it imports once, answers once without a verifier so that forks find warm what an
answer needs, and starts a device for every line
`journal pipe url number drafter` it reads, which begins an answer (number 0) or resumes one. The server says its
process id, and how it ended; the device says the answer's number into the pipe, then a word for each event, and waits.
"""

import asyncio
import contextlib
import gc
import io
import os
import signal
import sys
import traceback
from contextlib import aclosing
from pathlib import Path

from edge_runtime.events import Event, Finished, Retracted, Token
from edge_runtime.journal import Asked, Journal
from outrider.tokens import TextCodec
from tests.cloud_verifier.test_verifier import PROMPT, SAMPLED
from tests.edge_runtime.device import OTHER, Device, drafter_of, toy_codec

NUM_TOKENS = 12
ASKED = Asked(PROMPT, NUM_TOKENS, SAMPLED, vocabulary="v")


def said(event: Event) -> str:
    if isinstance(event, Token):
        return f"{'v' if event.is_verified else 'p'}{event.token_id}"
    if isinstance(event, Retracted):
        return f"r{event.position}"
    return "f" if isinstance(event, Finished) else "a"


async def answer(codec: TextCodec, path: Path, url: str, number: int, seed: int) -> None:
    """Prints a word for each event, a line for the number before them and for an error after them."""
    with Journal(path) as journal:
        device = Device(url, codec, drafter_of(seed), journal)
        device.number = number
        async with aclosing(device):
            if number:
                await device.resume()
            else:
                await device.begin(ASKED, answers_alone=True)
            print(device.number, flush=True)
            while device.is_running:
                num_told = len(device.screen.told)
                await device.take(1, 60)
                print(*map(said, device.screen.told[num_told:]), end=" ", flush=True)
        if device.error is not None:
            print(device.error.code, end=" ", flush=True)


def serve(codec: TextCodec) -> None:
    for line in sys.stdin:
        path, output, url, number, seed = line.split()
        pipe = os.open(output, os.O_WRONLY)
        child = os.fork()
        if child == 0:
            os.dup2(pipe, 1)
            os.close(pipe)
            try:
                asyncio.run(answer(codec, Path(path), url, int(number), int(seed)))
                os.close(1)
                signal.pause()
            finally:
                traceback.print_exc()
                os._exit(1)
        os.close(pipe)
        os.write(1, b"%d\n" % child)
        _, status = os.waitpid(child, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    codec = toy_codec(folder)
    with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):  # what fails fails again in forks
        asyncio.run(answer(codec, folder / "first.sqlite", "http://127.0.0.1:1", 0, OTHER))
    gc.freeze()
    serve(codec)
