"""What a pass over k tokens costs on this machine, and which pass sizes agree in every bit; kept in the manifest.

Costs are medians of interleaved repeats, so that a slow moment does not fall on one size. The bits are compared by
`numerics_probe.py`. Knows no backend: it drives the engine as anyone would.
"""

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import msgspec
import numpy as np

from outrider.engines import backend, open_engine
from outrider.engines.base import Chunk, Engine, EngineSettings
from outrider.engines.machine import processor, resolve_threads
from outrider.engines.numerics import class_cost_ms
from outrider.engines.numerics_probe import PROBE, SIZES, SPAN, find_classes, is_batch_exact
from outrider.errors import InvalidParameter
from outrider.manifest import ModelFolder, Profile, load_folder, write_manifest
from outrider.progress import Progress, silent

__all__ = ["choose_class", "load_or_measure", "load_or_time", "machine", "measure", "profile_key"]

COST_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32)
VERIFIED = 8  # rows of a pass that checks drafts, by which classes are judged
CONTEXT = 256  # positions that are held while passes are timed
REPEATS = 5
ROOMY = 640  # positions that leave room for every size measured
FILL = 128  # tokens a pass while the context is filled before measuring

logger = logging.getLogger(__name__)


def measure(
    engine: Engine,
    *,
    context: int = CONTEXT,
    repeats: int = REPEATS,
    settings: EngineSettings | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> Profile:
    """Cost for 1 … 32 tokens a pass at `context` positions, numerics classes, and whether batches keep bits.

    Some sizes are timed, the rest interpolated. Needs all of the engine's sequences free; leaves them free. Raises
    InvalidParameter when the engine's context is too small to measure in.
    """
    settings = settings or EngineSettings()
    room = engine.max_context - 2 * SPAN - PROBE
    if room < 1:
        raise InvalidParameter(f"a context of {engine.max_context} is too small to measure in; allow more")
    depth = min(context, room)
    token_ids = _some_ids(engine, depth + 4 * SIZES[-1])
    sequence = engine.allocate()
    try:
        _fill(engine, sequence, token_ids[:depth], 0)
        cost_ms = _costs(engine, sequence, token_ids, depth, COST_SIZES, repeats, progress, clock)
        # Padding and refused drafts are taken back by truncation: without it no class is of use.
        classes = find_classes(engine, sequence, token_ids, depth, progress) if engine.can_truncate else []
    finally:
        engine.release(sequence)
    profile = Profile(
        engine=engine.name,
        machine=machine(engine, settings),
        num_threads=resolve_threads(settings.num_threads),
        context=depth,
        cost_ms=cost_ms,
        classes=classes,
        batch_exact=False,
    )
    is_exact = is_batch_exact(engine, token_ids, depth, choose_class(profile))
    return msgspec.structs.replace(profile, batch_exact=is_exact)


def _some_ids(engine: Engine, num: int) -> list[int]:
    return [int(token_id) for token_id in np.random.default_rng(0).integers(0, engine.n_vocab, num)]


def _fill(engine: Engine, sequence: int, token_ids: Sequence[int], start: int) -> None:
    step = min(FILL, engine.max_chunk)
    for first in range(start, len(token_ids), step):
        engine.extend([Chunk(sequence, token_ids[first : first + step], 0)])


def _costs(
    engine: Engine,
    sequence: int,
    token_ids: Sequence[int],
    depth: int,
    sizes: Sequence[int],
    repeats: int,
    progress: Progress,
    clock: Callable[[], float],
) -> dict[int, float]:
    """Milliseconds for 1 to the last of so many tokens a pass, the logits of all rows included."""
    sizes = [size for size in sizes if size <= engine.max_chunk]
    taken_ms: dict[int, list[float]] = {size: [] for size in sizes}
    for repeat in range(repeats + 1):
        progress("timing passes", repeat, repeats + 1)
        for size in sizes:
            chunk = Chunk(sequence, token_ids[depth : depth + size], size)
            begun = clock()
            engine.extend([chunk])
            taken = (clock() - begun) * 1e3
            _rewind(engine, sequence, token_ids, depth)
            if repeat > 0:  # the first round warms up
                taken_ms[size].append(taken)
    progress("timing passes", repeats + 1, repeats + 1)
    medians = [statistics.median(taken_ms[size]) for size in sizes]
    return {size: round(float(np.interp(size, sizes, medians)), 3) for size in range(1, sizes[-1] + 1)}


def _rewind(engine: Engine, sequence: int, token_ids: Sequence[int], depth: int) -> None:
    if engine.can_truncate:
        engine.truncate(sequence, depth)
        return
    engine.release(sequence)
    again = engine.allocate()
    if again != sequence:
        raise InvalidParameter("an engine that cannot truncate is measured with all its sequences free")
    _fill(engine, sequence, token_ids[:depth], 0)


def machine(engine: Engine | type[Engine], settings: EngineSettings) -> str:
    """All that cost and bits depend on besides the weights: processor, backend, threads, provider."""
    threads = resolve_threads(settings.num_threads)
    layers = f", {settings.num_gpu_layers} GPU layers" if settings.num_gpu_layers else ""
    provider = "cpu" if settings.provider == "auto" else settings.provider
    return f"{processor()}, {engine.name}, {threads} threads, {provider}{layers}"


def profile_key(engine: Engine, settings: EngineSettings) -> str:
    """The name a profile is stored under: the machine, how many sequences share a pass, a context too short for all."""
    is_short = engine.max_context < ROOMY
    short = f", {engine.max_context} tokens of context" if is_short else ""
    return f"{machine(engine, settings)}, {engine.max_batch} sequences{short}"


def load_or_measure(
    folder: ModelFolder,
    engine: Engine,
    settings: EngineSettings,
    progress: Progress = silent,
    *,
    force: bool = False,
) -> Profile:
    """The stored profile of this engine on this machine, else a new one, which is stored. `force` measures anew."""
    key = profile_key(engine, settings)
    stored = load_folder(folder.path).manifest.profiles
    if key in stored and not force:
        return stored[key]
    profile = measure(engine, settings=settings, progress=progress)
    _store(folder, "profiles", key, profile)
    return profile


def load_or_time(
    folder: ModelFolder, settings: EngineSettings, sizes: Sequence[int], progress: Progress = silent
) -> dict[int, float]:
    """Milliseconds of passes of these sizes, no more: from a stored profile of whatever context, or timed once and
    stored. Opens the model only to time it; raises what that does."""
    here = machine(backend(folder, settings), settings)
    now = load_folder(folder.path).manifest
    known = [now.timings.get(here, {}), *(each.cost_ms for each in now.profiles.values() if each.machine == here)]
    if found := next((cost_ms for cost_ms in known if set(sizes) <= cost_ms.keys()), None):
        return found
    room = replace(settings, max_context=CONTEXT + max(sizes), max_sequences=1)
    with closing(open_engine(folder, room)) as engine:
        depth = engine.max_context - max(sizes)
        token_ids = _some_ids(engine, CONTEXT + max(sizes))
        sequence = engine.allocate()
        _fill(engine, sequence, token_ids[:depth], 0)
        cost_ms = _costs(engine, sequence, token_ids, depth, sizes, REPEATS, progress, time.perf_counter)
    _store(folder, "timings", here, cost_ms)
    return cost_ms


def _store(folder: ModelFolder, field: str, key: str, value: Profile | dict[int, float]) -> None:
    now = load_folder(folder.path).manifest  # measuring took a while: another process may have stored its own
    try:
        write_manifest(folder.path, msgspec.structs.replace(now, **{field: {**getattr(now, field), key: value}}))
    except OSError as error:
        logger.warning("what passes of %s cost was measured but could not be stored: %s", folder.name, error)


def choose_class(profile: Profile) -> list[int]:
    """The class in which one step and one pass over 8 rows, padded or split to its sizes, cost least together.

    Ascending; empty when no size has a class.
    """

    def cost(sizes: list[int]) -> float:
        by_rows = class_cost_ms(profile.cost_ms, sizes)
        return by_rows[1] + by_rows[VERIFIED]

    usable = [sorted(sizes) for sizes in profile.classes if min(sizes) in profile.cost_ms]
    return min(usable, key=cost, default=[])
