"""The service on Ray Serve: how many replicas there are, which of them a request goes to, and what each one runs.

    serve run cloud_verifier.scale:app model=qwen2.5-coder-1.5b-onnx replicas=2

Knows the deployment's numbers; a replica's own life is in `replica.py`. docs/operating-ray.md has the operator's side.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy, RequestRouterConfig

from cloud_verifier.limits import Limits
from cloud_verifier.loop import VerifierLoop
from cloud_verifier.replica import PENDING_PASSES, VerifierReplica
from cloud_verifier.target import open_verifier
from outrider import catalog
from outrider.engines import EngineSettings

__all__ = ["PendingWork", "Scale", "Settings", "app", "application"]

ROUTER = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"
SPARE_REQUESTS = 64  # beyond sessions: probes and short calls; an open socket counts as a request
FULL = 0.8  # of a replica's sessions: from there on another replica is wanted
CUT_S = 10.0  # after the grace: to close what is left


class Scale(BaseModel):
    """Numbers of a deployment. `max_replicas` above `replicas` lets it grow and shrink between the two."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replicas: PositiveInt = 1
    max_replicas: PositiveInt = 1
    target_passes: PositiveFloat = 1.0  # passes' worth of waiting sessions a replica should have, averaged
    look_back_s: PositiveFloat = 30.0  # the time it is averaged over
    grace_s: NonNegativeFloat = 20.0  # a leaving replica's sessions may go on for so long
    cpus: PositiveInt = 1  # cores of a replica: reserved, and the engine's threads
    gpus: NonNegativeFloat = 0.0


class Settings(Scale):
    """What `serve run` and a config file may set."""

    model: str  # a name or a path, as for `outrider verifier`
    sessions: PositiveInt = 4  # that stay in a replica's cache at once
    tokens: Path | None = None  # the file of `outrider verifier token`, the same for all replicas
    context: PositiveInt = EngineSettings.max_context
    provider: str = EngineSettings.provider
    gpu_layers: int = EngineSettings.num_gpu_layers
    lookup_tokens: NonNegativeInt = Limits().lookup_tokens  # held in a replica to make drafts of its own from; 0: none


class PendingWork:
    """Ray's autoscaling policy: replicas for the passes that are waited for, and for the sockets that are open."""

    def __init__(self, target_passes: float, sessions: float) -> None:
        self._target_passes = target_passes
        self._sessions = sessions

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        waiting = (context.aggregated_metrics or {}).get(PENDING_PASSES, {})
        wanted = max(sum(waiting.values()) / self._target_passes, context.total_num_requests / self._sessions)
        return wanted, {}


def application(
    build: Callable[[], VerifierLoop], scale: Scale, limits: Limits, tokens: Path | None = None
) -> serve.Application:
    """A deployment whose replicas run what `build` gives; `limits` are those that it gives its verifier."""
    deployment = serve.deployment(
        serve.ingress()(VerifierReplica),
        name="verifier",
        ray_actor_options={"num_cpus": scale.cpus, "num_gpus": scale.gpus},
        max_ongoing_requests=limits.max_sessions + SPARE_REQUESTS,
        graceful_shutdown_timeout_s=scale.grace_s + CUT_S,
        graceful_shutdown_wait_loop_s=0.5,
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),
        **_replicas(scale, limits),
    )
    return deployment.bind(build, tokens, scale.grace_s)


def _replicas(scale: Scale, limits: Limits) -> dict[str, Any]:
    if scale.max_replicas <= scale.replicas:
        return {"num_replicas": scale.replicas}
    numbers = {"target_passes": scale.target_passes, "sessions": FULL * limits.max_sessions}
    config = AutoscalingConfig(
        min_replicas=scale.replicas,
        max_replicas=scale.max_replicas,
        look_back_period_s=scale.look_back_s,
        metrics_interval_s=scale.look_back_s / 10,
        upscale_delay_s=scale.look_back_s,
        downscale_delay_s=10 * scale.look_back_s,
        policy=AutoscalingPolicy(policy_function=PendingWork, policy_kwargs=numbers),
    )
    return {"autoscaling_config": config}


def app(settings: Settings) -> serve.Application:
    """What `serve run` and a config file name."""
    limits = Limits(lookup_tokens=settings.lookup_tokens)
    return application(partial(_open, settings, limits), settings, limits, settings.tokens)


def _open(settings: Settings, limits: Limits) -> VerifierLoop:
    engine = EngineSettings(
        num_threads=settings.cpus,
        max_context=settings.context,
        max_sequences=settings.sessions,
        provider=settings.provider,
        num_gpu_layers=settings.gpu_layers,
    )
    return open_verifier(catalog.find(settings.model), engine, limits=limits).loop
