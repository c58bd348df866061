"""Suite `typing`: how soon a line is suggested to who types. A recorded session against the endpoint for editors.

First each key at its own time, as somebody types; then, before an endpoint that remembers nothing, each key as soon as
the suggestion before it is whole.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from benchmarks.measuring import measuring
from benchmarks.options import TypingOptions
from benchmarks.record import Result, Run, Way
from benchmarks.serving import running
from benchmarks.typist import HANG_S, LIMIT_S, Suggested, keys, replay, suggest
from benchmarks.ways import profiles
from edge_runtime.api import ApiSettings, Modes, create_api_server
from edge_runtime.runtime import Runtime
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.progress import Progress, silent

__all__ = ["run"]

MAX_CONTEXT = 2048
UNHURRIED = ApiSettings(requests_per_s=1e6)
WAYS = [
    Way(name="at their times", role="ours", note="a key ends what the one before asked for"),
    Way(name="each when the suggestion before it is whole", role="ours"),
]


def run(options: TypingOptions, command: Sequence[str], progress: Progress = silent) -> Result:
    """Takes three minutes at most. Raises what loading raises, InvalidParameter for a target that fills no gaps."""
    with measuring("typing", options, command, options.threads) as result:
        result.ways = WAYS
        typed = keys()[: options.num_keys]
        settings = EngineSettings(num_threads=options.threads, max_context=MAX_CONTEXT)
        progress("loading", 0, 0)
        folder = catalog.find(options.target)
        with Runtime.local(options.target, options.drafter, settings) as runtime:
            for way, limit_s in zip(WAYS, (LIMIT_S, LIMIT_S / 2), strict=True):
                is_paced = way is WAYS[0]
                with _endpoint(runtime, min(MAX_CONTEXT, folder.manifest.max_context)) as url:
                    if is_paced:
                        suggest(url, typed[0].body(), HANG_S)  # as a plugin does when a file is opened
                    found = replay(url, typed, is_paced=is_paced, limit_s=limit_s, progress=progress)
                result.runs += [_run(each, f"key/{number}", way.name) for number, each in enumerate(found)]
        result.profiles = profiles([options.target])
    return result


@contextmanager
def _endpoint(runtime: Runtime, max_context: int) -> Iterator[str]:
    modes = Modes(runtime, is_remote=False, max_context=max_context)
    with running(create_api_server(modes, UNHURRIED)) as address:
        yield f"http://{address}"


def _run(heard: Suggested, key: str, way: str) -> Run:
    first_s = heard.elapsed_s if heard.first_s is None else heard.first_s
    told = asdict(heard)
    text = told.pop("content")
    return Run(
        kind="typing",
        prompt=key,
        way=way,
        num_tokens=heard.num_tokens,
        seconds=heard.elapsed_s - first_s,
        first_s=first_s,
        digest=hashlib.sha256(text.encode()).hexdigest()[:16],
        more=told,
    )
