"""Suite `export`: the drafters of the store side by side: how near to the target, how fast, how large.

The target writes greedily; each drafter reads the same text, and at every position the two are compared, as the
exporter's quality report does. Then each is timed over single tokens, in turns, on the same prompts. The drafters that
may do are those of the target's vocabulary that are at most half its size; others are named with their reason.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing

from benchmarks.measuring import measuring
from benchmarks.options import ExportOptions
from benchmarks.order import rotated
from benchmarks.prompts import select
from benchmarks.record import Answer, Missing, Result, Run, Way
from benchmarks.ways import profiles
from export.report import compare_with, milliseconds_per_token, summary, write
from outrider import catalog
from outrider.engines import Engine, EngineSettings, open_engine
from outrider.errors import InvalidModel, InvalidParameter
from outrider.manifest import ModelFolder
from outrider.progress import Progress, silent
from outrider.tokens import TextCodec

__all__ = ["run"]

MAX_CONTEXT = 1024


def run(options: ExportOptions, command: Sequence[str], progress: Progress = silent) -> Result:
    """Raises what `select` and `catalog.find` do, InvalidParameter where nothing is left to compare."""
    with measuring("export", options, command, options.threads) as result:
        chosen = select(options.prompts)
        target = catalog.find(options.target)
        folders, result.missing = _drafters(target, options.drafters)
        if not folders:
            reasons = "; ".join(f"{each.name}: {each.reason}" for each in result.missing)
            raise InvalidParameter(
                f"no drafter to compare ({reasons or 'the store has no other model'}); pull or export one, or name it "
                "with --drafter"
            )
        codec = TextCodec(target)
        prompts = [
            (prompt, codec.encode_chat([{"role": "user", "content": prompt.text}]))
            for each in chosen.values()
            for prompt in each
        ]
        settings = EngineSettings(num_threads=options.threads, max_context=MAX_CONTEXT)
        with ExitStack() as stack:
            progress("loading", 0, 0)
            reference = stack.enter_context(closing(open_engine(target, settings)))
            engines = {folder.name: stack.enter_context(closing(open_engine(folder, settings))) for folder in folders}
            for engine in engines.values():
                milliseconds_per_token(engine, prompts[0][1])  # warm up
            for number, (prompt, token_ids) in enumerate(prompts):
                progress("comparing", number, len(prompts))
                text, rows = write(reference, token_ids, target.manifest.stop_ids, options.max_tokens)
                for name, engine in rotated(list(engines.items()), number):
                    result.runs.append(_compare(name, engine, prompt.kind, prompt.id, token_ids, text, rows))
            progress("comparing", len(prompts), len(prompts))
        result.ways = [Way(name=folder.name, role="ours", note=_made_by(folder)) for folder in folders]
        result.profiles = profiles([target.name, *engines])
        result.details = {"sizes": {folder.name: _size(folder) for folder in (target, *folders)}}
    return result


def _compare(
    name: str,
    engine: Engine,
    kind: str,
    prompt: str,
    token_ids: list[int],
    text: list[int],
    rows: Sequence[object],
) -> Run:
    began_s = time.perf_counter()
    comparison = compare_with(engine, token_ids, text, rows)  # type: ignore[arg-type]
    read_s = time.perf_counter() - began_s
    more = summary([comparison]) | {"ms_per_token": milliseconds_per_token(engine, token_ids)}
    right = sum(comparison.is_equal)
    answer = Answer(token_ids=text, seconds=read_s, first_s=0.0, drafted=len(text), accepted=right)
    return Run.of(answer, kind, prompt, name, more=more)


def _drafters(target: ModelFolder, named: Sequence[str]) -> tuple[list[ModelFolder], list[Missing]]:
    """Those named, or all of the store, that may draft for this target; and why the others may not."""
    folders, missing = [], []
    for name in named or [name for name in catalog.stored() if name != target.name]:
        try:
            folder = catalog.find(name)
        except InvalidModel as error:
            missing.append(Missing(name, str(error)))
            continue
        if folder.manifest.tokenizer_fingerprint != target.manifest.tokenizer_fingerprint:
            missing.append(Missing(name, "its vocabulary is another, so positions cannot be compared token by token"))
        elif not named and _size(folder) > _size(target) / 2:
            missing.append(Missing(name, f"over half the size of {target.name}; name it with --drafter to compare it"))
        else:
            folders.append(folder)
    return folders, missing


def _size(folder: ModelFolder) -> int:
    return sum((folder.path / file).stat().st_size for file in folder.manifest.files)


def _made_by(folder: ModelFolder) -> str:
    recipe = folder.manifest.recipe or {}
    words = [f"{key} {value}" for key, value in recipe.items() if key in ("quantization", "builder", "trim") and value]
    return ", ".join([folder.manifest.format, *words])
