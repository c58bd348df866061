"""Real processes without the second that their imports take: forks of one that has imported what they need.

`Forked(["outrider", "verifier", "tiny"], ...)` is `subprocess.Popen` for the command `outrider`, and for a module of
the tests by its name. A fork has its own descriptors, environment, folder, session and signals, and ends as any
interpreter does; PYTHONPATH alone is the parent's. Only the first fork of each command takes its modules apart at its
end, as that costs five times what a short command does. Run as a program this is the process that forks; it has no
threads, and ends with its socket.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Forked"]

ROOT = Path(__file__).parent.parent
IMPORTED = (
    "cloud_verifier.server",
    "cloud_verifier.target",
    "edge_runtime.api",
    "edge_runtime.cli.chat",
    "edge_runtime.cli.generate",
    "edge_runtime.cli.serve",
    "edge_runtime.cli.verifier",
    "llama_cpp",
    "prompt_toolkit.shortcuts",
    "tests.toy",
    "uvicorn.lifespan.off",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.h11_impl",
)
MAX_ASKED = 2**20


class Forked(subprocess.Popen[Any]):
    """Of Popen's options those for descriptors, text, `cwd`, `env` and `start_new_session` count."""

    def _execute_child(
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any, *more: Any
    ) -> None:
        _, _, _, child_in, parent_in, parent_out, child_out, parent_err, child_err, *rest = more
        wish = {
            "words": list(args),
            "cwd": str(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "is_leader": rest[5],
        }
        self._ended, ended = socket.socketpair()
        given = [given if given >= 0 else own for own, given in enumerate((child_in, child_out, child_err))]
        with ended:
            data = json.dumps(wish).encode()
            socket.send_fds(warm(), [len(data).to_bytes(4, "big") + data], [*given, ended.fileno()])
        self.pid = int.from_bytes(self._ended.recv(4), "big")
        assert self.pid
        self._child_created = True
        self._close_pipe_fds(child_in, parent_in, parent_out, child_out, parent_err, child_err)  # type: ignore[attr-defined]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and (ended := self._try_wait(os.WNOHANG))[0]:
            self._handle_exitstatus(ended[1])  # type: ignore[attr-defined]
        return self.returncode

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        self._ended.setblocking(wait_flags == 0)
        try:
            said = self._ended.recv(4)
        except BlockingIOError:
            return 0, 0
        self._ended.close()
        assert said, "the process that forks has ended"
        return self.pid, int.from_bytes(said, "big")


@functools.cache
def warm() -> socket.socket:
    """The socket to the process that forks; one for all tests of this process."""
    here, there = socket.socketpair()
    with there:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(there.fileno())],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=[there.fileno()],
            start_new_session=True,
        )

    def end() -> None:
        here.close()
        process.wait()

    atexit.register(end)
    return here


def serve(asking: socket.socket) -> Callable[[], None] | None:
    """Forks, until nobody asks any more. In a fork: what it is to run."""
    waking, wakes = socket.socketpair()
    waking.setblocking(False)
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    ended_whole: set[tuple[str, ...]] = set()
    with selectors.DefaultSelector() as selector:
        selector.register(asking, selectors.EVENT_READ)
        selector.register(waking, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if waking in ready:
                waking.recv(4096)
                reap(running)
            if asking not in ready:
                continue
            data, fds, *_ = socket.recv_fds(asking, MAX_ASKED, 4)
            if not data:
                return None
            while len(data) < 4 + int.from_bytes(data[:4], "big"):
                data += asking.recv(MAX_ASKED)
            ended = socket.socket(fileno=fds.pop())
            wish = json.loads(data[4:])
            command = tuple(wish["words"][:2])
            pid = os.fork()
            if pid == 0:
                break
            for fd in fds:
                os.close(fd)
            running[pid] = ended
            ended_whole.add(command)
            ended.send(pid.to_bytes(4, "big"))
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for each in (asking, waking, wakes, ended, *running.values()):
        each.close()
    run = functools.partial(become, wish, fds)
    return functools.partial(end_at_once, run) if command in ended_whole else run


def reap(running: dict[int, socket.socket]) -> None:
    """Says of each that has ended how it did."""
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with running.pop(pid) as asked, contextlib.suppress(BrokenPipeError):  # nobody may want to know
                asked.send(status.to_bytes(4, "big"))


def end_at_once(run: Callable[[], None]) -> None:
    """Runs it and ends the process with its status, all said and every handler called. What is not the plain case goes
    on to the interpreter's own end."""
    try:
        run()
        status = 0
    except SystemExit as stop:
        if not isinstance(stop.code, int | None):
            raise
        status = stop.code or 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(status)
    os._exit(status)


def become(wish: Mapping[str, Any], fds: Sequence[int]) -> None:
    """The process that was asked for."""
    for own, fd in enumerate(fds):
        os.dup2(fd, own)
        os.close(fd)
    if wish["is_leader"]:
        os.setsid()
    os.chdir(wish["cwd"])
    os.environ.clear()
    os.environ.update(wish["env"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
    sys.modules["__main__"] = types.ModuleType("__main__")
    name, *words = wish["words"]
    sys.argv[:] = [name, *words]
    text = functools.partial(open, encoding="utf-8", closefd=False)
    sys.stdin = sys.__stdin__ = text(0)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = text(1, "w")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = text(2, "w", errors="backslashreplace", buffering=1)  # type: ignore[misc]
    if name == "outrider":
        from edge_runtime.cli import main

        main()
    else:
        runpy.run_module(name, run_name="__main__")


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(module)
    gc.freeze()
    fork = serve(socket.socket(fileno=int(sys.argv[1])))
    if fork is None:
        os._exit(0)
    fork()
