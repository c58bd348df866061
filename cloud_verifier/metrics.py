"""Prometheus metrics of one verifier, in the field's names. Labels hold codes, kinds and credentials' ids, no more.

Passes are counted as they end, in the verifier's thread; what the verifier counts itself is read when it is asked for.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from cloud_verifier.limits import MAX_DRAFTS_PER_PASS
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.turn import PassReport

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SPEC = "outrider_spec_decode_num"


class Metrics:
    """Listens to the verifier's passes from construction on."""

    def __init__(self, verifier: VerifierLoop) -> None:
        self._verifier = verifier
        self._num_resident = 0
        self.registry = registry = CollectorRegistry()
        self._drafts = Counter(f"{SPEC}_drafts", "Passes that checked a device's drafts.", registry=registry)
        self._drafted = Counter(f"{SPEC}_draft_tokens", "Devices' drafts checked.", registry=registry)
        self._accepted = Counter(f"{SPEC}_accepted_tokens", "Devices' drafts accepted.", registry=registry)
        by_position = Counter(
            f"{SPEC}_accepted_tokens_per_pos",
            "Drafts accepted, by place in the draft.",
            ["position"],
            registry=registry,
        )
        self._accepted_at = [by_position.labels(str(position)) for position in range(MAX_DRAFTS_PER_PASS)]
        self._own_drafted = Counter("outrider_own_draft_tokens", "Own drafts checked.", registry=registry)
        self._own_accepted = Counter("outrider_own_accepted_tokens", "Own drafts accepted.", registry=registry)
        self._emitted = Counter(
            f"{SPEC}_emitted_tokens", "Tokens verified, accepted drafts included.", registry=registry
        )
        self._filled = Counter("outrider_fill_tokens", "Tokens that filled caches.", registry=registry)
        self._pass_seconds = Histogram("outrider_pass_seconds", "Engine passes.", buckets=SECONDS, registry=registry)
        self._pass_rows = Histogram("outrider_pass_rows", "Rows of a pass.", buckets=SIZES, registry=registry)
        self._pass_sessions = Histogram(
            "outrider_pass_sessions", "Sessions of a pass.", buckets=SIZES, registry=registry
        )
        labels = ["direction", "kind"]
        self._messages = Counter("outrider_messages", "Messages of sockets.", labels, registry=registry)
        self._bytes = Counter("outrider_message_bytes", "Their bytes, padding included.", labels, registry=registry)
        self._refusals = Counter("outrider_refusals", "Faults and errors told to clients.", ["code"], registry=registry)
        self._requests = Histogram(
            "outrider_request_seconds",
            "Requests, to the last byte.",
            ["route", "status"],
            buckets=SECONDS,
            registry=registry,
        )
        registry.register(self)
        verifier.verifier.on_pass.append(self._on_pass)

    def message(self, direction: str, kind: str, num_bytes: int) -> None:
        self._messages.labels(direction, kind).inc()
        self._bytes.labels(direction, kind).inc(num_bytes)

    def refused(self, code: str) -> None:
        self._refusals.labels(code).inc()

    def request(self, route: str, status: int, elapsed_s: float) -> None:
        self._requests.labels(route, str(status)).observe(elapsed_s)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)

    def _on_pass(self, report: PassReport) -> None:
        self._pass_seconds.observe(report.elapsed_s)
        self._pass_rows.observe(report.num_rows)
        self._pass_sessions.observe(report.num_sessions)
        self._filled.inc(report.num_filled)
        self._drafts.inc(sum(1 for count in report.drafted if count))
        self._drafted.inc(sum(report.drafted))
        self._accepted.inc(sum(report.accepted))
        self._own_drafted.inc(sum(report.own_drafted))
        self._own_accepted.inc(sum(report.own_accepted))
        self._emitted.inc(sum(report.emitted))
        for count in report.accepted:
            for child in self._accepted_at[:count]:
                child.inc()
        self._num_resident = self._verifier.verifier.cache.num_tokens  # the engine is asked in its own thread

    def collect(self) -> Iterator[Metric]:
        """What is read at a scrape; may be a pass old."""
        verifier, cache = self._verifier.verifier, self._verifier.verifier.cache
        yield GaugeMetricFamily("outrider_sessions_open", "Sessions open.", value=verifier.num_sessions)
        yield GaugeMetricFamily("outrider_messages_queued", "Messages unread.", value=self._verifier.num_waiting)
        yield GaugeMetricFamily("outrider_resident_tokens", "Tokens in the KV cache.", value=self._num_resident)
        yield CounterMetricFamily("outrider_evictions", "Lists that made room.", value=cache.num_evictions)
        yield CounterMetricFamily("outrider_reused_tokens", "Tokens found in the cache.", value=cache.num_reused_tokens)
        rejected = CounterMetricFamily("outrider_rejected_drafts", "Drafts refused.", labels=["credential"])
        balance = GaugeMetricFamily(
            "outrider_draft_balance_seconds", "What drafts cost beyond what they brought.", labels=["credential"]
        )
        for credential, guard in list(verifier.guards.items()):
            rejected.add_metric([credential], guard.num_rejected)
            balance.add_metric([credential], guard.balance_ms / 1000)
        yield rejected
        yield balance
