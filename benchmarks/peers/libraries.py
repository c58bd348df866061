"""Where a peer's library lies: among ours, or, where its version clashes with ours, in a folder of its own.

`python -m benchmarks.peers --install` fills those folders (`make peers`). Loads nothing.
"""

import subprocess
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

__all__ = ["APART", "GENAI", "OPENVINO", "TIGHTWAD", "Apart", "Installed"]


@dataclass(frozen=True)
class Installed:
    """Among ours."""

    module: str

    def search_path(self) -> Path | None:
        return None

    def reason(self) -> str | None:
        if find_spec(self.module) is None:
            return f'{self.module} is not installed; run: pip install "outrider[peers]"'
        return None


@dataclass(frozen=True)
class Apart:
    """In a folder beside the environment's own; what it shares with ours it takes from ours."""

    module: str
    requirements: tuple[str, ...]

    def search_path(self) -> Path | None:
        return Path(sys.prefix) / "peers" / self.requirements[0].replace("==", "-")

    def reason(self) -> str | None:
        if PathFinder.find_spec(self.module, [str(self.search_path())]) is None:
            return f"{self.requirements[0]} is not installed; run: python -m benchmarks.peers --install"
        return None

    def install(self) -> None:
        arguments = ["install", "--quiet", "--no-deps", "--upgrade", "--target", str(self.search_path())]
        subprocess.run([sys.executable, "-m", "pip", *arguments, *self.requirements], check=True)


# The version that the exporter builds with has no drafts; the first with them wants a newer transformers to build.
GENAI = Apart("onnxruntime_genai", ("onnxruntime-genai==0.18.0",))
# It asks for HTTP/2, which httpx leaves to an extra.
TIGHTWAD = Apart("tightwad", ("tightwad==0.5.4", "h2==4.4.1", "hpack==4.2.0", "hyperframe==6.1.0"))
# Large, and of use to these benchmarks alone.
OPENVINO = Apart(
    "openvino_genai", ("openvino-genai==2026.4.1.0", "openvino==2026.4.1", "openvino-tokenizers==2026.4.1.0")
)
APART = [GENAI, OPENVINO, TIGHTWAD]
