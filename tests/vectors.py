"""Test vectors that Python and other languages share: the noise, the choice, the messages. `python -m tests.vectors`.

The file is what this module makes; a test says so, and the app's tests read the file.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from outrider.choice import SamplingParams, choose, gumbel_noise, noise_bits
from outrider.framing import to_frame
from outrider.wire import Cancel, Draft, Fault, Load, Open, Opened, Params, Verified, pack_ids, unpack_ids

FILE = Path(__file__).parent / "vectors.json"
SEEDS = (0, 1, 42, 2**32 - 1, 2**53 - 1)
POSITIONS = (0, 1, 1000, 2**24)
IDS = (0, 1, 2, 255, 49151, 151935, 2**31 - 1)
OPEN = Open("v" * 64, "t" * 64, Params.of(SamplingParams(0.8, seed=42, num_prompt=3)), 103, 0, pack_ids([2]), b"")
DOWN = (
    Opened("s", "t", "v", 320, 256, 103, 2, b"k" * 32),
    Verified(3, 17, pack_ids([1, 2, 319]), 2, 4),
    Verified(0, 2**24, pack_ids([151935]), 0, 0, "stop", [], b"s" * 64),
    Fault("overloaded", "later, späte", True, 1500),
    Load(-1, 0),
)
UP = (
    msgspec.structs.replace(OPEN, token_ids=pack_ids([1, 2, 151935])),
    msgspec.structs.replace(OPEN, token_ids=pack_ids(range(1100)), target=""),
    Draft(7, 2000, pack_ids([5, 151935]), bytes([0, 255])),
    Draft(0, 3, pack_ids(range(256)), bytes(range(256))),
    Cancel(),
)


def told(message: Any) -> dict[str, Any]:
    """The fields; ids as lists, bytes as numbers."""
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    for name, value in fields.items():
        if isinstance(value, bytes):
            fields[name] = unpack_ids(value) if name.endswith("_ids") else list(value)
    if isinstance(message, Open):
        fields["params"] = {"temperature": message.params.temperature, "seed": message.params.seed}
        fields["num_prompt"] = message.params.num_prompt
    return {"kind": type(message).__name__.lower(), **fields}


def choices() -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    found = []
    for temperature, seed, position in ((0.0, 0, 0), (0.8, 42, 7), (1.0, 1, 1000), (2.0, 2**32 - 1, 3)):
        logits = np.round(4 * rng.standard_normal(64), 3).astype(np.float32)
        id_map = np.sort(rng.choice(151936, 64, replace=False)).astype(np.int32)
        params = SamplingParams(temperature, seed=seed)
        found.append(
            {
                "temperature": temperature,
                "seed": seed,
                "position": position,
                "logits": [float(value) for value in logits],
                "chosen": choose(logits, params, position),
                "id_map": id_map.tolist(),
                "chosen_id": choose(logits, params, position, id_map),
            }
        )
    return found


def vectors() -> dict[str, Any]:
    ids = np.array(IDS)
    noise = [
        {
            "seed": seed,
            "position": position,
            "ids": list(IDS),
            "bits": noise_bits(seed, position, ids).tolist(),
            "noise": gumbel_noise(seed, position, ids).tolist(),
        }
        for seed in SEEDS
        for position in POSITIONS
    ]
    framed = {
        way: [{**told(message), "frame": to_frame(message, is_padded=True).hex()} for message in messages]
        for way, messages in (("up", UP), ("down", DOWN))
    }
    return {"noise": noise, "choices": choices(), **framed}


def write() -> None:
    FILE.write_text(json.dumps(vectors(), indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    write()
