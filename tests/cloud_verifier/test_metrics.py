"""What operators are told, by metrics, log lines and spans: true figures, and nothing of what was said."""

import asyncio
import io
import json
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from cloud_verifier import tracing
from cloud_verifier.logs import configure_logs, formatter_of
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.metrics import Metrics
from cloud_verifier.verifier import Verifier
from edge_runtime.events import Finished
from edge_runtime.links import WebSocketLink
from edge_runtime.report import Report
from edge_runtime.request import GenerationRequest
from edge_runtime.retry import Retry
from edge_runtime.session import Session
from outrider.errors import InvalidParameter, Overloaded
from tests.cloud_verifier.test_rest import PARAMS, WANT, service, until, wrong
from tests.cloud_verifier.test_verifier import PROMPT, SAMPLED
from tests.drafting import EagerPace, ScriptedDrafter
from tests.toy import ToyEngine
from tests.warm import Forked

ROOT = Path(__file__).parents[2]


def scrape(client: httpx.Client) -> dict[tuple[str, ...], float]:
    """Samples by name and label values."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def generate(url: str, retry: Retry | None = None) -> Report:
    """A drafting session over a socket, most drafts right."""
    drafter = ScriptedDrafter(PROMPT + WANT, accuracy=0.8, longest=8, n_vocab=16, seed=2)

    async def run() -> Report:
        with ThreadPoolExecutor(1) as executor:
            session = Session(WebSocketLink(url), drafter, EagerPace(), executor, retry=retry)
            request = GenerationRequest(PROMPT, 60, SAMPLED)
            async for event in session.generate(request):
                if isinstance(event, Finished):
                    return event.report
        raise AssertionError("it did not finish")

    return asyncio.run(run())


def test_the_figures_are_those_of_the_sessions() -> None:
    with service() as (client, loop, engine):
        reports = [generate(str(client.base_url)) for _ in range(3)]
        wish = {"tokens": PROMPT, "drafts": [*WANT[:5], wrong(WANT[5])], "params": PARAMS}
        answer = client.post("/v1/verify", json=wish).json()
        until(lambda: loop.verifier.num_sessions == 0)
        until(lambda: ("outrider_request_seconds_count", "/v1/verify", "200") in scrape(client))
        found = scrape(client)
        spec = "outrider_spec_decode_num"
        num_accepted = found[(f"{spec}_accepted_tokens_total",)]
        assert num_accepted == sum(report.num_accepted for report in reports) + answer["accepted"] > 20
        assert found[(f"{spec}_emitted_tokens_total",)] == sum(report.num_tokens for report in reports) + 6
        assert found[(f"{spec}_draft_tokens_total",)] > num_accepted
        assert 0 < found[(f"{spec}_drafts_total",)] <= engine.num_passes
        at = [found[(f"{spec}_accepted_tokens_per_pos_total", str(position))] for position in range(31)]
        assert sum(at) == num_accepted
        assert at == sorted(at, reverse=True)
        assert found[("outrider_pass_seconds_count",)] == found[("outrider_pass_rows_count",)] == engine.num_passes
        assert found[("outrider_pass_rows_sum",)] == sum(map(sum, engine.chunks))
        assert found[("outrider_reused_tokens_total",)] == loop.verifier.cache.num_reused_tokens > 0
        assert found[("outrider_resident_tokens",)] == loop.verifier.cache.num_tokens > 0
        assert found[("outrider_evictions_total",)] == 0
        rejected = found[(f"{spec}_draft_tokens_total",)] - num_accepted
        assert found[("outrider_rejected_drafts_total", "")] == rejected > 0
        balance_s = loop.verifier.guards[""].balance_ms / 1000
        assert found[("outrider_draft_balance_seconds", "")] == pytest.approx(balance_s)
        assert found[("outrider_messages_total", "up", "open")] == 3
        assert found[("outrider_messages_total", "down", "verified")] == sum(report.num_passes for report in reports)
        assert found[("outrider_message_bytes_total", "up", "open")] == 3 * 192
        assert found[("outrider_request_seconds_count", "/v1/verify", "200")] == 1
        assert found[("outrider_sessions_open",)] == 0


def test_refusals_are_counted_by_code() -> None:
    with service() as (client, loop, _):
        client.post("/v1/verify", json={"tokens": [16], "drafts": []})
        client.post("/v1/verify", json={"tokens": [1], "drafts": [], "target": "x"})
        client.get("/v1/nothing")
        loop.start_draining()
        client.post("/v1/generate", json={"tokens": [1]})
        with pytest.raises(Overloaded):
            generate(str(client.base_url), Retry(first_attempts=1))
        until(lambda: scrape(client).get(("outrider_refusals_total", "moved")) == 2)
        found = scrape(client)
        codes = {name[1]: value for name, value in found.items() if name[0] == "outrider_refusals_total"}
        assert codes == {"invalid_token": 1, "model_mismatch": 1, "invalid_parameter": 1, "moved": 2}
        assert found[("outrider_request_seconds_count", "/v1/verify", "400")] == 1
        assert found[("outrider_request_seconds_count", "none", "404")] == 1


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    loop = VerifierLoop(Verifier(ToyEngine(), target="t", vocabulary="v"))
    try:
        families = list(Metrics(loop).registry.collect())
    finally:
        loop.close()
    suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    known = {family.name + suffix for family in families for suffix in suffixes[family.type]}
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked = {name for expr in targets for name in re.findall(r"outrider_\w+", expr)}
    assert asked <= known
    assert {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in asked} == {
        name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in known
    }, "each metric has its place"
    page = (ROOT / "docs" / "operating.md").read_text()
    for family in families:
        assert family.name in page, f"docs/operating.md does not name {family.name}"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The service's log, for as long as a test runs."""
    loggers = [logging.getLogger(name) for name in ("cloud_verifier", "uvicorn.error")]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    yield io.StringIO()
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_a_session_leaves_two_lines_and_none_of_its_words(log: io.StringIO) -> None:
    configure_logs(formatter_of("json"), log)
    prompt = [13, 14, 13, 15, 13, 14]
    with service() as (client, _, _):
        wish = {"tokens": prompt, "max_tokens": 9, "stream": False}
        client.post("/v1/generate?secret=1", json=wish, headers={"x-request-id": "mine"})
        client.post("/v1/generate", json={**wish, "tokens": [99]}, headers={"x-request-id": "bad"})
        report = generate(str(client.base_url))
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    mine = [line for line in lines if line.get("request_id") == "mine"]
    assert [line["event"] for line in mine] == ["session opened", "session ended", "request"]
    ended = mine[1]
    assert (ended["num_prompt"], ended["num_tokens"], ended["num_passes"]) == (6, 9, 9)
    assert (ended["outcome"], ended["door"], ended["credential"]) == ("length", "generate", "")
    assert ended["duration_ms"] > 0
    assert (mine[2]["route"], mine[2]["status"]) == ("/v1/generate", 200)
    bad = [line for line in lines if line.get("request_id") == "bad"]
    assert [(line["event"], line.get("outcome")) for line in bad[:1]] == [("session ended", "invalid_token")]
    assert (bad[-1]["status"], bad[-1]["refused"]) == (400, "invalid_token")
    [streamed] = [line for line in lines if line["event"] == "session ended" and line["door"] == "stream"]
    assert (streamed["num_tokens"], streamed["num_accepted"]) == (report.num_tokens, report.num_accepted)
    text = log.getvalue()
    assert "secret" not in text
    assert "13, 14" not in text
    assert "99" not in re.sub(r'"(time|duration_ms|request_id)": [^,}]*', "", text)


def test_text_lines_say_the_same(log: io.StringIO) -> None:
    configure_logs(formatter_of("text"), log)
    with service() as (client, _, _):
        client.post("/v1/verify", json={"tokens": PROMPT, "drafts": []}, headers={"x-request-id": "mine"})
    [ended] = [line for line in log.getvalue().splitlines() if "session ended" in line]
    assert "request_id=mine" in ended
    assert "num_tokens=1" in ended
    with pytest.raises(InvalidParameter):
        formatter_of("xml")


def test_a_failure_of_ours_is_logged_under_its_request(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logs(formatter_of("json"), log)

    def fail(self: Metrics) -> bytes:
        raise ValueError("told to")

    monkeypatch.setattr(Metrics, "text", fail)
    with service() as (client, _, _):
        answer = client.get("/metrics", headers={"x-request-id": "mine"})
    assert (answer.status_code, answer.json()["error"]["request_id"]) == (500, "mine")
    assert "told to" not in answer.text
    [line] = [json.loads(line) for line in log.getvalue().splitlines() if "a request failed" in line]
    assert line["request_id"] == "mine"
    assert "told to" in line["exception"]


def test_each_session_is_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("cloud_verifier.service.configured_tracer", lambda: tracing.tracer_of(provider))
    with service() as (client, _, _):
        report = generate(str(client.base_url))
        wish: dict[str, Any] = {"tokens": PROMPT, "drafts": WANT[:3], "params": PARAMS}
        client.post("/v1/verify", json=wish, headers={"x-request-id": "mine"})
        client.post("/v1/verify", json={**wish, "target": "x"})
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["outrider.stream", "outrider.verify", "outrider.verify"]
    stream, verify, refused = (dict(span.attributes or {}) for span in spans)
    assert stream["outrider.num_tokens"] == report.num_tokens
    assert stream["outrider.num_accepted"] == report.num_accepted
    assert verify["outrider.request_id"] == "mine"
    assert verify["outrider.num_drafted"] == 3
    assert refused["outrider.outcome"] == "model_mismatch"


def test_opentelemetry_is_imported_only_where_it_is_configured() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    process = Forked(["tests.cloud_verifier.traced_app"], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0].splitlines() == ["False False", "True True"]
    assert process.returncode == 0
