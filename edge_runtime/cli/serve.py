"""`outrider serve`: answers for any app on this device that speaks OpenAI's HTTP interface."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.cli.access import CaFile, ClientCert, TokenFile, read_access
from edge_runtime.cli.asking import DrafterName, TargetName, Threads, VerifierUrl
from edge_runtime.cli.keeping import open_journal
from edge_runtime.cli.listening import check_exposure, is_loopback, listen, stop_at_signals, url_of
from edge_runtime.cli.output import console, show_progress
from edge_runtime.cli.tuned import TunedOption, find_tuned
from edge_runtime.parts import DEFAULT_TARGET
from edge_runtime.runtime import Runtime
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.errors import InvalidParameter, MissingExtra

if TYPE_CHECKING:
    from edge_runtime.api import ApiKey, ApiSettings

__all__ = ["serve"]

KEY_VARIABLE = "OUTRIDER_API_KEY"


def serve(
    target: TargetName = None,
    verifier: VerifierUrl = None,
    drafter: DrafterName = "auto",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")] = 8600,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback it takes a key and TLS.")
    ] = "127.0.0.1",
    threads: Threads = 0,
    tuned: TunedOption = "auto",
    context: Annotated[int, typer.Option(help="Tokens that prompt and answer may have.")] = EngineSettings.max_context,
    sessions: Annotated[int, typer.Option(help="Conversations that stay in the target's cache at once.")] = 2,
    keeps: Annotated[
        bool,
        typer.Option("--journal", help="Keep what is answered; sync then has verified what was answered offline."),
    ] = False,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File of the key that clients must show.", show_default=f"the key in {KEY_VARIABLE}, if any"),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="This server's certificate and its chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's private key, PEM.")] = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    client_cert: ClientCert = None,
    allow_insecure: Annotated[
        bool,
        typer.Option(
            "--allow-insecure",
            help="Listen beyond loopback without key or TLS; send the verifier's token without TLS.",
        ),
    ] = False,
    log_format: Annotated[str, typer.Option(help="json or text, a line an event, on standard error.")] = "text",
) -> None:
    """Answer apps on this device as OpenAI's interface has it, until interrupted: chat, completions, models.

    A request's model chooses how: auto, hybrid, local or cloud. Without --journal nothing of what is
    asked or answered is kept.

    Examples:

        outrider serve

        outrider serve --verifier http://127.0.0.1:8700 --port 8600

        curl http://127.0.0.1:8600/v1/models
    """
    try:
        from cloud_verifier.logs import configure_logs, formatter_of
        from edge_runtime.api import Modes, create_api_server
    except ImportError as error:
        raise MissingExtra(f'serving needs {error.name}; run: pip install "outrider[server]"') from None
    if not 1 <= sessions <= 1024:
        raise InvalidParameter(f"--sessions is {sessions}; give a number from 1 to 1024")
    formatter = formatter_of(log_format)
    api = _api_settings(host, api_key_file, tls_cert, tls_key, is_insecure=allow_insecure)
    settings = EngineSettings(num_threads=threads, max_context=context, max_sequences=sessions)
    access = read_access(verifier, token_file, ca_file, client_cert, is_insecure=allow_insecure)
    found = find_tuned(tuned, target=target, verifier=verifier, drafter=drafter, threads=threads)
    knobs = found.knobs if found else None
    journal = open_journal(is_needed=True) if keeps else None
    with listen(host, port) as listener, journal or nullcontext():
        with show_progress() as progress:
            if verifier is None:
                name = target or DEFAULT_TARGET
                runtime = Runtime.local(name, drafter, settings, progress, journal=journal, knobs=knobs)
            else:
                runtime = Runtime.remote(
                    verifier,
                    target,
                    drafter,
                    settings,
                    progress,
                    token=access.token,
                    tls=access.tls,
                    journal=journal,
                    knobs=knobs,
                )
        with runtime:
            name = ""
            if target or verifier is None:
                manifest = catalog.find(target or DEFAULT_TARGET).manifest
                name, context = manifest.name, min(context, manifest.max_context)
            is_remote = verifier is not None
            modes = Modes(runtime, is_remote=is_remote, model=name, max_context=context, journal=journal)
            server = create_api_server(modes, api)
            stop_at_signals(server)
            listener.listen()  # whoever reads the next line may come at once
            url = url_of(listener, is_tls=api.tls is not None)
            console.print(f"models: {', '.join(modes.names)}", style="dim")
            console.print(f"a page to chat: {url}/", style="dim")
            console.print(f"answering at {url}/v1  (Ctrl-C stops it)")
            configure_logs(formatter)
            server.run(sockets=[listener])
            console.print("stopped")


def _api_settings(
    host: str, key_file: Path | None, cert: Path | None, tls_key: Path | None, *, is_insecure: bool
) -> "ApiSettings":
    from cloud_verifier.server import tls_context
    from edge_runtime.api import ApiSettings

    key = _read_key(key_file)
    how = f"give --api-key-file or set {KEY_VARIABLE}"
    check_exposure(host, cert, tls_key, secrets="key", has_secrets=key is not None, how=how, is_insecure=is_insecure)
    return ApiSettings(
        tokens=key,
        is_public=not is_loopback(host),
        tls=tls_context(cert, tls_key) if cert and tls_key else None,
    )


def _read_key(file: Path | None) -> "ApiKey | None":
    """The key in `file`, else in the environment, else none. Raises InvalidParameter."""
    from edge_runtime.api import ApiKey

    try:
        key = os.environ.get(KEY_VARIABLE, "") if file is None else file.read_text("ascii")
    except (OSError, ValueError):
        raise InvalidParameter(f"{file} cannot be read as a key; write one there, a line of letters") from None
    return ApiKey(key.strip()) if key.strip() or file is not None else None
