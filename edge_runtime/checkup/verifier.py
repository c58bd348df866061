"""Whether a verifier answers and lets this device in: how long a round trip takes, and what target it runs."""

import asyncio
import ssl
import statistics
from dataclasses import dataclass

from edge_runtime.checkup.finding import Finding
from edge_runtime.links import WebSocketLink
from outrider import catalog
from outrider.choice import SamplingParams
from outrider.errors import LinkLost, OutriderError, ProtocolError
from outrider.manifest import load_folder
from outrider.wire import Fault, Load, Open, Opened, Params, pack_ids

__all__ = ["Reached", "check_verifier", "reach"]

PINGS = 5
LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Reached:
    rtt_ms: float  # median
    target: str  # fingerprints
    vocabulary: str
    max_context: int


def check_verifier(
    url: str, *, token: str = "", tls: ssl.SSLContext | None = None
) -> tuple[Reached | None, list[Finding]]:
    """What was reached, if anything, as `reach` does it."""
    try:
        reached = reach(url, token=token, tls=tls)
    except OutriderError as error:
        return None, [Finding("verifier", "broken", f"{error} [{error.code}]")]
    names = {}
    for name, path in catalog.stored().items():
        try:
            names[name] = load_folder(path).manifest
        except OutriderError:
            continue
    known = next((name for name, manifest in names.items() if manifest.fingerprint == reached.target), "")
    detail = (
        f"{url} answers in {reached.rtt_ms:.1f} ms and runs {known or f'target {reached.target[:12]}'}, "
        f"{reached.max_context} tokens of context"
    )
    findings = [Finding("verifier", "ok", detail)]
    if not any(manifest.tokenizer_fingerprint == reached.vocabulary for manifest in names.values()):
        lacking = f"no model here has its vocabulary {reached.vocabulary[:12]}; pull or export one that has"
        findings.append(Finding("verifier", "broken", lacking, "outrider models"))
    return reached, findings


def reach(url: str, *, token: str = "", tls: ssl.SSLContext | None = None) -> Reached:
    """Opens one session, for one token, and leaves it. Raises LinkLost, what the verifier refused, ProtocolError."""
    return asyncio.run(_reach(WebSocketLink(url, token=token, tls=tls)))


async def _reach(link: WebSocketLink) -> Reached:
    params = Params.of(SamplingParams())
    try:
        async with asyncio.timeout(LIMIT_S):
            await link.open()
            rtt_ms = statistics.median([await link.ping_ms() for _ in range(PINGS)])
            await link.send(Open("", "", params, 2, 0, b"", pack_ids([0])))
            while isinstance(message := await link.receive(), Load):
                pass
    except TimeoutError:
        raise LinkLost(f"the verifier says nothing for {LIMIT_S:.0f} s; check it and the network") from None
    finally:
        await link.close()
    if isinstance(message, Fault):
        raise message.error()
    if not isinstance(message, Opened):
        raise ProtocolError("the verifier did not open the session; check both sides' versions")
    return Reached(rtt_ms, message.target, message.vocabulary, message.max_context)
