"""What a pass of the torch engine takes, against the sessions in it and the drafts of each; a Markdown table.

    python -m benchmarks.torch_pass --device cuda --size 1.5b

Weights are random, of a usual shape (`--size`), or those of a model on this machine (`--model`): time does not depend
on what they say. Every session holds `--context` tokens. Times include the logits' way back to the host.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.machines import Curve
from outrider import catalog
from outrider.engines import Chunk, EngineSettings
from outrider.engines.machine import processor, resolve_threads
from outrider.engines.torch import TorchEngine
from outrider.manifest import Manifest, ModelFolder, Source

BATCHES = (1, 2, 4, 8, 16, 32, 64)
DRAFTS = (0, 1, 3, 7, 15, 31)
WARM_UP = 2  # rounds: the first runs a shape plainly, the second records it where the device has graphs
FILL = 128

# Vocabulary, width, inner width, layers, heads, key-value heads: Qwen2.5's, and one for trying this out.
SIZES = {
    "tiny": (512, 64, 128, 2, 4, 2),
    "0.5b": (151936, 896, 4864, 24, 14, 2),
    "1.5b": (151936, 1536, 8960, 28, 12, 2),
    "7b": (152064, 3584, 18944, 28, 28, 4),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--size", choices=SIZES, default="1.5b", help="random weights of this shape")
    parser.add_argument("--model", help="a Hugging Face model on this machine instead")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--drafts", type=int, nargs="+", default=DRAFTS)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, help="keep the times as a cost curve for `outrider bench fleet`")
    options = parser.parse_args(arguments)
    settings = EngineSettings(
        num_threads=options.threads,
        max_context=options.context + max(options.drafts) + 1,
        max_sequences=max(options.batches),
        provider=options.device,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = catalog.find(options.model) if options.model else random_model(Path(scratch), options.size)
        engine = TorchEngine(folder, settings)
    try:
        taken_ms = measure(engine, options.batches, options.drafts, options.context, options.repeats)
    finally:
        engine.close()
    name = options.model or f"random weights, {options.size}"
    print(f"{name}, {engine.name}, {where(options.device, settings)}, {options.context} tokens a session\n")
    print("| sessions | " + " | ".join(f"{count} drafts" for count in options.drafts) + " |")
    print("|---|" + "---|" * len(options.drafts))
    for batch in options.batches:
        cells = [f"{statistics.median(taken_ms[batch, count]):.2f} ms" for count in options.drafts]
        print(f"| {batch} | " + " | ".join(cells) + " |")
    if options.json:
        options.json.write_bytes(msgspec.json.encode(curve(taken_ms)))
    return 0


def curve(taken_ms: Mapping[tuple[int, int], Sequence[float]]) -> Curve:
    """By sessions, then by rows of each: the drafts and the token before them."""
    measured: dict[int, dict[int, float]] = {}
    for (batch, count), times in taken_ms.items():
        measured.setdefault(batch, {})[1 + count] = statistics.median(times)
    return Curve(measured=measured)


def random_model(path: Path, size: str) -> ModelFolder:
    import torch
    import transformers

    n_vocab, width, inner, num_layers, num_heads, num_kv_heads = SIZES[size]
    config = transformers.Qwen2Config(
        vocab_size=n_vocab,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads,
        tie_word_embeddings=size != "7b",
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(path)
    source = Source("random", "0")
    manifest = Manifest(
        name=size,
        format="hf",
        architecture="qwen2",
        file=".",
        files={},
        source=source,
        licence="none",
        n_vocab=n_vocab,
        max_context=config.max_position_embeddings,
        stop_ids=[],
        tokenizer_fingerprint="none",
    )
    return ModelFolder(path, manifest)


def measure(
    engine: TorchEngine, batches: Sequence[int], drafts: Sequence[int], context: int, repeats: int
) -> dict[tuple[int, int], list[float]]:
    """Milliseconds by (sessions, drafts), interleaved, so that a slow moment does not fall on one of them."""
    rng = np.random.default_rng(0)
    text: list[int] = rng.integers(0, engine.n_vocab, context + max(drafts) + 1).tolist()
    sequences = [engine.allocate() for _ in range(max(batches))]
    for first in range(0, context, FILL):
        for sequence in sequences:
            engine.extend([Chunk(sequence, text[first : min(context, first + FILL)], 0)])
    taken_ms: dict[tuple[int, int], list[float]] = {}
    for repeat in range(WARM_UP + repeats):
        print(f"round {repeat + 1} of {WARM_UP + repeats}", file=sys.stderr)
        for batch in batches:
            for count in drafts:
                rows = text[context : context + 1 + count]
                chunks = [Chunk(sequence, rows, 1 + count) for sequence in sequences[:batch]]
                began_s = time.perf_counter()
                engine.extend(chunks)
                elapsed_ms = (time.perf_counter() - began_s) * 1000
                for sequence in sequences[:batch]:
                    engine.truncate(sequence, context)
                if repeat >= WARM_UP:
                    taken_ms.setdefault((batch, count), []).append(elapsed_ms)
    return taken_ms


def where(device: str, settings: EngineSettings) -> str:
    import torch

    if device == "cpu":
        return f"{processor()}, {resolve_threads(settings.num_threads)} threads"
    properties: Any = torch.cuda.get_device_properties(0)
    return f"{properties.name}, CUDA {torch.version.cuda}"


if __name__ == "__main__":
    sys.exit(main())
