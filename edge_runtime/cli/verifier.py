"""`outrider verifier`: serve one target to devices."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_verifier.limits import Limits
from cloud_verifier.signing import load_signer
from cloud_verifier.target import open_verifier
from edge_runtime.cli.completion import model_names
from edge_runtime.cli.listening import check_exposure, is_loopback, listen, stop_at_signals, url_of
from edge_runtime.cli.output import console, show_progress
from edge_runtime.cli.verifier_token import token_file
from edge_runtime.parts import DEFAULT_TARGET
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.engines.base import PROVIDERS
from outrider.errors import InvalidParameter, MissingExtra
from outrider.manifest import ModelFolder

if TYPE_CHECKING:
    from cloud_verifier.settings import ServiceSettings
    from edge_runtime.phone.site import PhoneSite

__all__ = ["verifier"]

LIMITS = Limits()


def verifier(
    model: Annotated[
        str, typer.Argument(help="The target: a name or a path.", autocompletion=model_names)
    ] = DEFAULT_TARGET,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")] = 8700,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback it takes tokens and TLS.")
    ] = "127.0.0.1",
    threads: Annotated[int, typer.Option(help="Threads of the model; 0 uses the physical cores.")] = 0,
    sessions: Annotated[int, typer.Option(help="Sessions that stay in the cache at once.")] = 4,
    context: Annotated[int, typer.Option(help="Tokens that a session may have.")] = EngineSettings.max_context,
    provider: Annotated[str, typer.Option(help=f"{', '.join(PROVIDERS)}.")] = "auto",
    gpu_layers: Annotated[int, typer.Option(help="Layers on the GPU, for GGUF models; -1 for all.")] = 0,
    lookup_tokens: Annotated[
        int, typer.Option(help="Tokens held, over all sessions, to make drafts of its own from; 0 makes none.")
    ] = LIMITS.lookup_tokens,
    phone: Annotated[
        str | None,
        typer.Option(help="Serve the app for phones, too, with this drafter, an ONNX model."),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            help="File of the tokens that let devices in.", show_default="the one of `verifier token`, if any"
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="The service's certificate and its chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's private key, PEM.")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="Let in only devices with a certificate of this authority, PEM.")
    ] = None,
    allow_insecure: Annotated[
        bool, typer.Option("--allow-insecure", help="Listen beyond loopback without tokens, or without TLS.")
    ] = False,
    grace: Annotated[float, typer.Option(help="Seconds that open sessions may go on after SIGTERM.")] = 30.0,
    log_format: Annotated[str, typer.Option(help="json or text, a line an event, on standard error.")] = "text",
) -> None:
    """Serve MODEL to devices until interrupted; SIGTERM lets open sessions finish first.

    Examples:

        outrider verifier qwen2.5-coder-1.5b-onnx --port 8700

        outrider verifier smollm2-135m-instruct --phone smollm2-135m-onnx-general

        outrider verifier token add laptop
    """
    try:
        from cloud_verifier.logs import configure_logs, formatter_of
        from cloud_verifier.server import create_server
    except ImportError as error:
        raise MissingExtra(f'the service needs {error.name}; run: pip install "outrider[server]"') from None
    if not 1 <= sessions <= 1024:
        raise InvalidParameter(f"--sessions is {sessions}; give a number from 1 to 1024")
    if not 0 <= grace <= 86400:
        raise InvalidParameter(f"--grace is {grace:g}; give seconds from 0 to 86400")
    formatter = formatter_of(log_format)
    service = _service_settings(host, tokens, tls_cert, tls_key, client_ca, is_insecure=allow_insecure)
    service = replace(service, grace_s=grace)
    limits = Limits(lookup_tokens=lookup_tokens)
    signer = load_signer(catalog.home() / "verifier-key.pem")
    listener = listen(host, port)
    settings = EngineSettings(
        num_threads=threads,
        max_context=context,
        max_sequences=sessions,
        provider=provider,
        num_gpu_layers=gpu_layers,
    )
    with listener:
        folder = catalog.find(model)
        site = _phone_site(phone, folder)
        with show_progress() as progress:
            target = open_verifier(folder, settings, progress, limits, signer)
        service = replace(service, model=folder.name, engine=folder.manifest.format)
        server = create_server(target.loop, service, site)
        try:
            stop_at_signals(server)
            listener.listen()  # whoever reads the next line may come at once
            console.print(f"receipts are signed with key {signer.public_key.hex()}", style="dim")
            url = url_of(listener, is_tls=service.tls is not None)
            if site is not None:
                console.print(f"the app for phones: {url}{site.start}", style="dim")
            console.print(f"{folder.name} verifies at {url}  (Ctrl-C stops it)")
            configure_logs(formatter)
            server.run(sockets=[listener])
            console.print("stopped")
        finally:
            target.close()


def _phone_site(drafter: str | None, target: ModelFolder) -> "PhoneSite | None":
    """Raises what says that the drafter cannot be had, or is none for this target in a browser."""
    if drafter is None:
        return None
    from edge_runtime.phone.site import PhoneSite

    return PhoneSite(catalog.find(drafter), target.manifest.tokenizer_fingerprint)


def _service_settings(
    host: str, tokens: Path | None, cert: Path | None, key: Path | None, client_ca: Path | None, *, is_insecure: bool
) -> "ServiceSettings":
    """Raises InvalidParameter for what would let strangers in, or let them listen, without the operator's word."""
    from cloud_verifier.server import tls_context
    from cloud_verifier.settings import ServiceSettings

    file = token_file(tokens)
    has_tokens = bool(file.tokens())
    if tokens is not None and not has_tokens:
        raise InvalidParameter(
            f"there is no token in {tokens}; run: outrider verifier token add NAME --tokens {tokens}"
        )
    if client_ca is not None and cert is None:
        raise InvalidParameter("--client-ca is for TLS; give --tls-cert and --tls-key too")
    how = "add tokens with `outrider verifier token add NAME`"
    check_exposure(host, cert, key, secrets="tokens", has_secrets=has_tokens, how=how, is_insecure=is_insecure)
    return ServiceSettings(
        tokens=file if file.path.exists() else None,  # one whose last token was revoked lets nobody in
        is_public=not is_loopback(host),
        tls=tls_context(cert, key, client_ca) if cert and key else None,
    )
