"""Who types into an editor: the keys of a recorded session, and what comes of each when `/infill` is asked after it.

The keys are those recorded in `typing_session.json`, at their times. The endpoint is asked as editor plugins ask it; a
key that comes before the suggestion has ended closes the connection.
"""

import http.client
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from outrider.errors import InvalidParameter
from outrider.progress import Progress, silent

__all__ = ["HANG_S", "MAX_TOKENS", "Key", "Suggested", "keys", "replay", "suggest"]

SESSION = Path(__file__).with_name("typing_session.json")
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
    """What came of a key. Times are from the key on; None: the next key was sooner."""

    content: str
    elapsed_s: float  # until nothing more came
    first_s: float | None  # until its first piece
    first_line_s: float | None
    num_tokens: int  # pieces, where it is not whole
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
    """Ask, and stop listening after `wait_s`: whoever is asked then has to stop, too. Raises InvalidParameter."""
    began_s = time.perf_counter()
    pieces: list[str] = []
    first_s: float | None = None
    first_line_s: float | None = None
    last: dict[str, Any] | None = None
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=wait_s)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/infill", json.dumps({**body, "stream": True}), headers)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise InvalidParameter(f"the endpoint refuses what editors ask ({answer.read().decode()})")
        while last is None and (line := answer.readline()):
            elapsed_s = time.perf_counter() - began_s
            if not line.startswith(b"data: "):
                continue
            told = json.loads(line.removeprefix(b"data: "))
            if "error" in told:
                raise InvalidParameter(f"the endpoint breaks off ({told['error']['message']})")
            pieces += [told["content"]] if told["content"] else []
            first_s = elapsed_s if first_s is None else first_s
            if first_line_s is None and ("\n" in "".join(pieces).lstrip() or told["stop"]):
                first_line_s = elapsed_s
            if told["stop"]:
                last = told
            elif elapsed_s >= wait_s:
                break
            elif connection.sock is not None:
                connection.sock.settimeout(wait_s - elapsed_s)
    except TimeoutError:
        """The next key came first."""
    finally:
        connection.close()
    heard = Suggested("".join(pieces), time.perf_counter() - began_s, first_s, first_line_s, len(pieces))
    if last is None:
        return heard
    return replace(
        heard,
        num_tokens=last["tokens_predicted"],
        num_read=last["timings"]["prompt_n"],
        num_recalled=last["tokens_recalled"],
        is_whole=True,
    )


def replay(
    url: str, typed: Sequence[Key], *, is_paced: bool, limit_s: float = LIMIT_S, progress: Progress = silent
) -> list[Suggested]:
    """Type the keys at their times, or each as soon as the suggestion before it is whole; no more after `limit_s`."""
    began_s = time.perf_counter()
    stage = "keys at their times" if is_paced else "keys that wait"
    found: list[Suggested] = []
    for number, key in enumerate(typed):
        if time.perf_counter() - began_s > limit_s:
            break
        progress(stage, number, len(typed))
        is_last = number + 1 == len(typed)
        gap_s = LAST_GAP_S if is_last else typed[number + 1].at_s - key.at_s
        due_s = time.perf_counter() + gap_s
        found.append(suggest(url, key.body(), gap_s if is_paced else HANG_S))
        if is_paced and not is_last:
            time.sleep(max(0.0, due_s - time.perf_counter()))
    progress(stage, len(typed), len(typed))
    return found
