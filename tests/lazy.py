"""Large libraries that few tests need, imported when a test first uses them: every worker reads every file of tests and
runs a part of them."""

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["kubernetes_validate", "onnx", "openai", "trustme"]

if TYPE_CHECKING:
    import kubernetes_validate
    import onnx
    import openai
    import trustme
else:

    class Lazy:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getattr__(self, attribute: str) -> Any:
            if attribute.startswith("_"):  # as pytest asks of whatever stands in a file whether it is a test
                raise AttributeError(attribute)
            return getattr(importlib.import_module(self.name), attribute)

    kubernetes_validate, onnx, openai, trustme = map(Lazy, __all__)
