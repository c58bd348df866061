"""What each suite can be asked for, and each default, once. Loads no engine: the command line reads it for its help."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from benchmarks.prompts import KINDS, Selection
from edge_runtime.parts import DEFAULT_DRAFTER, DEFAULT_TARGET

__all__ = [
    "COUNTING",
    "AskingOptions",
    "ExportOptions",
    "FleetOptions",
    "LinkOptions",
    "PairOptions",
    "ServiceOptions",
    "SuiteOptions",
    "TypingOptions",
    "WireOptions",
]

COUNTING = "counting"  # a target that is no model: after a token comes the next number
QUICK_TOKENS = 24
QUICK_KEYS = 4
DEFAULT, FEW, CODE = Selection(), Selection(count=2), Selection(("code",), count=8)
EVERYTHING = Selection(KINDS, count=2)


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """What all have in common."""

    is_quick: bool = False

    def quick(self) -> Self:
        """As little as there can be: does it run?"""
        return replace(self, is_quick=True)


@dataclass(frozen=True, kw_only=True)
class AskingOptions(SuiteOptions):
    """What all have in common that ask prompts of a target."""

    target: str = DEFAULT_TARGET
    prompts: Selection = DEFAULT
    max_tokens: int = 96
    threads: int = 0

    def quick(self) -> Self:
        """One prompt of each kind, few tokens, no pauses."""
        return replace(super().quick(), prompts=replace(self.prompts, count=1), max_tokens=QUICK_TOKENS)


@dataclass(frozen=True, kw_only=True)
class PairOptions(AskingOptions):
    drafters: tuple[str, ...] = ("lookup", "qwen2.5-coder-0.5b-onnx", DEFAULT_DRAFTER, "auto")
    also: tuple[str, ...] = ("qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-1.5b-q4_0")  # the same weights, alone
    peers: str = "all"


@dataclass(frozen=True, kw_only=True)
class LinkOptions(AskingOptions):
    prompts: Selection = FEW
    max_tokens: int = 80
    threads: int = 1
    drafter: str = "auto"
    rtts_ms: tuple[float, ...] = (0.0, 14.0, 50.0, 100.0, 300.0)
    kbit_per_s: float = 0.0  # each way; 0: as much as loopback gives

    def quick(self) -> Self:
        return replace(super().quick(), rtts_ms=(0.0, 5.0))


@dataclass(frozen=True, kw_only=True)
class ServiceOptions(AskingOptions):
    prompts: Selection = CODE
    drafter: str = "lookup"
    sessions: tuple[int, ...] = (1, 2, 4, 8)
    num_streams: int = 64  # sessions of the run without a model
    stream_tokens: int = 1000

    def quick(self) -> Self:
        few = replace(self.prompts, count=2)  # one for each device
        return replace(super().quick(), prompts=few, sessions=(1, 2), num_streams=3, stream_tokens=40)


@dataclass(frozen=True, kw_only=True)
class ExportOptions(AskingOptions):
    prompts: Selection = EVERYTHING
    max_tokens: int = 48
    drafters: tuple[str, ...] = ()  # none named: all in the store that may do


@dataclass(frozen=True, kw_only=True)
class WireOptions(SuiteOptions):
    num_tokens: int = 512
    lengths: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 31)  # drafts a turn

    def quick(self) -> Self:
        return replace(super().quick(), num_tokens=96, lengths=(0, 4))


@dataclass(frozen=True, kw_only=True)
class FleetOptions(SuiteOptions):
    """Rates are tokens a second of one device."""

    engine: str = "h200-32b"  # what passes cost
    parts: tuple[str, ...] = ("capacity", "rtt", "cost")
    kinds: tuple[str, ...] = ("code", "chat")
    rates: tuple[float, ...] = (10.0, 20.0, 40.0)  # for which devices are counted
    rtt_ms: float = 30.0  # of capacity and cost
    most_devices: int = 0  # on one verifier; 0: as many as it has sequences
    rtt_tokens: int = 1000  # of an answer, where round trips are compared
    num_devices: int = 10_000  # of the fleet,
    activity: float = 0.05  # the share of them that generate at once,
    rate: float = 20.0  # what each of them gets,
    answer_tokens: int = 64  # of an answer,
    prompt_tokens: int = 256  # and of a prompt, which the verifier reads
    prices: Path | None = None  # the list; None: the one that is here
    verifier_hour: float | None = None  # instead of the list's
    seed: int = 0

    def quick(self) -> Self:
        few = replace(super().quick(), rates=(10.0,), most_devices=2, rtt_tokens=40)
        return replace(few, num_devices=10, activity=0.1, answer_tokens=16, prompt_tokens=16)


@dataclass(frozen=True, kw_only=True)
class TypingOptions(SuiteOptions):
    target: str = DEFAULT_TARGET
    drafter: str = "auto"
    threads: int = 0
    num_keys: int | None = None  # of the session; None: all

    def quick(self) -> Self:
        return replace(super().quick(), num_keys=QUICK_KEYS)
