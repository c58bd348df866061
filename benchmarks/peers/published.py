"""Figures of programs that are not run here, as their authors give them.

They stand beside the measured table, never in it: other models, other machines, other prompts.
"""

from benchmarks.peers.base import Published

__all__ = ["published"]

PUBLISHED = (
    Published(
        "SpecEdge",
        "2.22x the throughput of the server, 1.91x its cost efficiency, 11.24 % less time between tokens",
        "an A100 that verifies, RTX 4090 that draft, 14 ms round trip, against a server that speculates alone",
        "arXiv 2505.17052",
    ),
    Published(
        "SLED",
        "2.2x the throughput, 2.8x the capacity of the server",
        "Jetson Orin Nano and Raspberry Pi draft, four A100 verify; their first experiments",
        "arXiv 2506.09397",
    ),
    Published(
        "WISP",
        "up to 2.1x the capacity of serving without drafts and 4.1x that of SLED",
        "numerical results of the authors",
        "arXiv 2601.11652",
    ),
    Published(
        "PipeSD",
        "1.16x to 2.16x the speed of other schemes for device and cloud, 14 to 25 % less energy",
        "thresholds tuned for each pair by Bayesian optimisation",
        "PipeSD, ICML 2026",
    ),
    Published(
        "autodraft-sd",
        "79 % lower cloud cost, 44 % more throughput than the server alone",
        "NVIDIA GPUs on both sides",
        "description of the package, version 1.1.1",
    ),
    Published(
        "PicoSpec",
        "up to 2.9x the speed of plain decoding in the cloud, under 150 bytes a round",
        "drafts from the device; machines as in the paper",
        "the PicoSpec paper",
    ),
    Published("PEARL", "up to 4.43x plain decoding", "both models in one machine; as in the paper", "the PEARL paper"),
    Published("Mirror-SD", "2.8x to 5.8x", "machines as in the paper", "the Mirror-SD paper"),
    Published("SGLang", "2.36x with EAGLE trees", "a GPU server, as its authors set it up", "documentation of SGLang"),
    Published(
        "MLX-LM and LM Studio", "1.82x and 2.43x with a draft model", "Apple silicon", "announcements of their authors"
    ),
)


def published() -> list[Published]:
    return list(PUBLISHED)
