"""OpenTelemetry spans, where an endpoint is configured: one a session. Without, none of it is imported."""

import os
from typing import Any

from outrider.errors import MissingExtra

__all__ = ["configured_tracer", "tracer_of"]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def configured_tracer() -> Any:
    """A tracer that exports over OTLP as OpenTelemetry's environment variables say; None where no endpoint is set.

    Raises MissingExtra.
    """
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExtra(f'tracing needs {error.name}; run: pip install "outrider[otel]"') from None
    name = os.environ.get("OTEL_SERVICE_NAME", "outrider-verifier")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return tracer_of(provider)


def tracer_of(provider: Any) -> Any:
    """This service's tracer of a TracerProvider."""
    return provider.get_tracer("outrider.cloud_verifier")
