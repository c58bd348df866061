"""`python -m benchmarks.typing`: how soon a line is suggested to who types. Takes two minutes at most.

The keys are those recorded in `tests/edge_runtime/api/typing_session.json`, at their times. After each the endpoint is
asked as editor plugins ask `/infill`; a key that comes before the suggestion has ended closes the connection. Then the
same again, each key as soon as the suggestion before it is whole. Prints the median time to the first line. Needs a
quiet machine. `--json FILE` keeps every figure.
"""

import argparse
import contextlib
import dataclasses
import http.client
import json
import math
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.api import ApiSettings, Modes, create_api_server
from edge_runtime.parts import DEFAULT_TARGET
from edge_runtime.runtime import Runtime
from outrider.engines import EngineSettings
from outrider.engines.machine import processor, resolve_threads

SESSION = Path(__file__).parent.parent / "tests" / "edge_runtime" / "api" / "typing_session.json"
LIMIT_S = 120.0
HANG_S = 60.0
LAST_GAP_S = 2.0  # after the last key
MAX_TOKENS = 32


@dataclass(frozen=True)
class Key:
    """The state of the editor after a key: the time, the text before and behind the cursor, the other open files."""

    at_s: float
    before: str
    behind: str
    files: tuple[tuple[str, str], ...] = ()

    def body(self, **over: Any) -> dict[str, Any]:
        """What llama.vim would send."""
        start = self.before.rfind("\n") + 1
        return {
            "input_prefix": self.before[:start],
            "prompt": self.before[start:],
            "input_suffix": self.behind,
            "input_extra": [{"filename": name, "text": text} for name, text in self.files],
            "n_predict": MAX_TOKENS,
            "top_k": 40,
            "top_p": 0.99,
            "samplers": ["top_k", "top_p", "infill"],
            "cache_prompt": True,
            **over,
        }


@dataclass(frozen=True)
class Suggested:
    """What came of a key. `first_line_ms`: None where the next key was sooner."""

    first_line_ms: float | None
    content: str
    num_read: int = 0  # tokens of the prompt
    num_recalled: int = 0
    is_whole: bool = False


def keys() -> list[Key]:
    """The recorded session. An event opens a file at a place, types, accepts a suggestion, or erases."""
    session = json.loads(SESSION.read_text())
    files: dict[str, str] = dict(session["files"])
    opened: list[str] = []
    name, place = "", 0
    found = []
    for event in session["events"]:
        if "open" in event:
            name = event["open"]
            opened = [*(each for each in opened if each != name), name]
            lines = files[name].split("\n")
            place = sum(len(line) + 1 for line in lines[: event["line"] - 1]) + event["column"]
        else:
            start = place - event.get("erase", 0)
            text = event.get("type", event.get("accept", ""))
            files[name] = files[name][:start] + text + files[name][place:]
            place = start + len(text)
        others = tuple((each, session["files"][each]) for each in opened[:-1])
        found.append(Key(event["at_ms"] / 1000, files[name][:place], files[name][place:], others))
    return found


def suggest(url: str, body: dict[str, Any], wait_s: float) -> Suggested:
    """Ask, and stop listening after `wait_s`: whoever is asked then has to stop, too."""
    began_s = time.perf_counter()
    first_line_ms: float | None = None
    text = ""
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=wait_s)
    try:
        connection.request(
            "POST", "/infill", json.dumps({**body, "stream": True}), {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise SystemExit(f"the endpoint answers {answer.status}: {answer.read().decode()}")
        while line := answer.readline():
            elapsed_s = time.perf_counter() - began_s
            if not line.startswith(b"data: "):
                continue
            told = json.loads(line.removeprefix(b"data: "))
            text += told["content"]
            if first_line_ms is None and ("\n" in text.lstrip() or told["stop"]):
                first_line_ms = elapsed_s * 1000
            if told["stop"]:
                return Suggested(
                    first_line_ms, text, told["timings"]["prompt_n"], told["tokens_recalled"], is_whole=True
                )
            if elapsed_s >= wait_s:
                break
            if connection.sock is not None:
                connection.sock.settimeout(wait_s - elapsed_s)
    except TimeoutError:
        """The next key came first."""
    finally:
        connection.close()
    return Suggested(first_line_ms, text)


def replay(url: str, typed: list[Key], *, is_paced: bool, limit_s: float = LIMIT_S) -> list[Suggested]:
    """Type the keys at their times, or each as soon as the suggestion before it is whole."""
    began_s = time.perf_counter()
    found: list[Suggested] = []
    for number, key in enumerate(typed):
        if time.perf_counter() - began_s > limit_s:
            break
        gap_s = typed[number + 1].at_s - key.at_s if number + 1 < len(typed) else LAST_GAP_S
        due_s = time.perf_counter() + gap_s
        found.append(suggest(url, key.body(), gap_s if is_paced else HANG_S))
        if is_paced:
            time.sleep(max(0.0, due_s - time.perf_counter()))
    return found


@contextlib.contextmanager
def endpoint(runtime: Runtime, max_context: int) -> Iterator[str]:
    modes = Modes(runtime, is_remote=False, max_context=max_context)
    server = create_api_server(modes, ApiSettings(requests_per_s=1e6))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


HEAD = (
    "| keys | | first line, median | before the next key | prompt tokens read, median | known from before |\n"
    "|---|---|---|---|---|---|"
)


def show(found: list[Suggested], how: str) -> str:
    """A row of the table. The median is over all keys: a line that the next key did not wait for was later than all."""
    times = [math.inf if each.first_line_ms is None else each.first_line_ms for each in found]
    median = statistics.median(times) if times else math.inf
    whole = [each for each in found if each.is_whole]
    read = statistics.median([each.num_read for each in whole]) if whole else 0
    recalled = sum(each.num_recalled > 0 for each in whole)
    return (
        f"| {len(found)} | {how} | {f'{median:.0f} ms' if median < math.inf else 'later than the next key'} "
        f"| {sum(time < math.inf for time in times)} | {read:.0f} | {recalled} of {len(whole)} |"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default=DEFAULT_TARGET)
    parser.add_argument("--drafter", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    settings = EngineSettings(num_threads=options.threads, max_context=2048)
    typed = keys()
    print(f"{len(typed)} keys in {typed[-1].at_s:.0f} s; first the file is read", file=sys.stderr)
    with Runtime.local(options.target, options.drafter, settings) as runtime:
        with endpoint(runtime, settings.max_context) as url:
            suggest(url, typed[0].body(), HANG_S)  # as a plugin does when a file is opened
            paced = replay(url, typed, is_paced=True)
        print("now each key waits for its suggestion", file=sys.stderr)
        with endpoint(runtime, settings.max_context) as url:  # it remembers nothing
            waiting = replay(url, typed, is_paced=False, limit_s=LIMIT_S / 2)
    print(f"{processor()}, {resolve_threads(options.threads)} threads; {options.target}, drafter {options.drafter}\n")
    print(HEAD)
    print(show(paced, "at their times"))
    print(show(waiting, "each when the suggestion before it is whole"))
    if options.json:
        runs = {"paced": paced, "waiting": waiting}
        found = {name: [dataclasses.asdict(each) for each in run] for name, run in runs.items()}
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
