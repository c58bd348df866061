"""What each suite can be asked for, and each default, once. Loads no engine: the command line reads it for its help."""

from dataclasses import dataclass, replace
from typing import Self

from benchmarks.prompts import KINDS, Selection
from edge_runtime.parts import DEFAULT_DRAFTER, DEFAULT_TARGET

__all__ = ["COUNTING", "ExportOptions", "LinkOptions", "PairOptions", "ServiceOptions", "SuiteOptions", "WireOptions"]

COUNTING = "counting"  # a target that is no model: after a token comes the next number
QUICK_TOKENS = 24
DEFAULT, FEW, CODE = Selection(), Selection(count=2), Selection(("code",), count=8)
EVERYTHING = Selection(KINDS, count=2)


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """What all that generate have in common."""

    target: str = DEFAULT_TARGET
    prompts: Selection = DEFAULT
    max_tokens: int = 96
    threads: int = 0
    is_quick: bool = False

    def quick(self) -> Self:
        """One prompt of each kind, few tokens, no pauses: does it run?"""
        return replace(self, prompts=replace(self.prompts, count=1), max_tokens=QUICK_TOKENS, is_quick=True)


@dataclass(frozen=True, kw_only=True)
class PairOptions(SuiteOptions):
    drafters: tuple[str, ...] = ("lookup", "qwen2.5-coder-0.5b-onnx", DEFAULT_DRAFTER, "auto")
    also: tuple[str, ...] = ("qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-1.5b-q4_0")  # the same weights, alone
    peers: str = "all"


@dataclass(frozen=True, kw_only=True)
class LinkOptions(SuiteOptions):
    prompts: Selection = FEW
    max_tokens: int = 80
    threads: int = 1
    drafter: str = "auto"
    rtts_ms: tuple[float, ...] = (0.0, 14.0, 50.0, 100.0, 300.0)
    kbit_per_s: float = 0.0  # each way; 0: as much as loopback gives

    def quick(self) -> Self:
        return replace(super().quick(), rtts_ms=(0.0, 5.0))


@dataclass(frozen=True, kw_only=True)
class ServiceOptions(SuiteOptions):
    prompts: Selection = CODE
    drafter: str = "lookup"
    sessions: tuple[int, ...] = (1, 2, 4, 8)
    num_streams: int = 64  # sessions of the run without a model
    stream_tokens: int = 1000

    def quick(self) -> Self:
        few = replace(self.prompts, count=2)  # one for each device
        return replace(super().quick(), prompts=few, sessions=(1, 2), num_streams=3, stream_tokens=40)


@dataclass(frozen=True, kw_only=True)
class ExportOptions(SuiteOptions):
    prompts: Selection = EVERYTHING
    max_tokens: int = 48
    drafters: tuple[str, ...] = ()  # none named: all in the store that may do


@dataclass(frozen=True)
class WireOptions:
    num_tokens: int = 512
    lengths: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 31)  # drafts a turn
    is_quick: bool = False

    def quick(self) -> "WireOptions":
        return replace(self, num_tokens=96, lengths=(0, 4), is_quick=True)
