"""Keeps the libraries that run models from reporting to their makers.

Imported before any of them, by whoever loads them or starts a process that does. A user's own setting stands.
"""

import os
import sys

# ONNX Runtime keeps an id of the device in the user's cache, and sends events of each process with it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO sends an event of each import; without the library `openvino_telemetry` it cannot.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
