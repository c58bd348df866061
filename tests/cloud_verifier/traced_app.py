"""Makes the service's app twice, the second time with an endpoint for traces, and says each time what was imported.

Run as a program by test_metrics.py.
"""

import os
import sys

from cloud_verifier.loop import VerifierLoop
from cloud_verifier.service import create_app
from cloud_verifier.verifier import Verifier
from tests.toy import ToyEngine

if __name__ == "__main__":
    loop = VerifierLoop(Verifier(ToyEngine(), target="t", vocabulary="v"))
    for endpoint in ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}):
        os.environ.update(endpoint)
        create_app(loop)
        print("opentelemetry.sdk" in sys.modules, "opentelemetry.exporter" in sys.modules)
    loop.close()
