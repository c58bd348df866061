"""`outrider verifier`: serve one target to devices."""

import ipaddress
import signal
import socket
from typing import Annotated

import typer

from cloud_verifier.target import open_verifier
from edge_runtime.cli.output import console, show_progress
from edge_runtime.parts import DEFAULT_TARGET
from outrider import catalog
from outrider.engines import EngineSettings
from outrider.errors import InvalidParameter, MissingExtra

__all__ = ["verifier"]


def verifier(
    model: Annotated[str, typer.Argument(help="The target: a name or a path.")] = DEFAULT_TARGET,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")] = 8700,
    host: Annotated[str, typer.Option(help="Address to listen on; only loopback for now.")] = "127.0.0.1",
    threads: Annotated[int, typer.Option(help="Threads of the model; 0 uses the physical cores.")] = 0,
    sessions: Annotated[int, typer.Option(help="Sessions that stay in the cache at once.")] = 4,
    context: Annotated[int, typer.Option(help="Tokens that a session may have.")] = EngineSettings.max_context,
    provider: Annotated[str, typer.Option(help="cpu, cuda, qnn, coreml, openvino or directml.")] = "cpu",
    gpu_layers: Annotated[int, typer.Option(help="Layers on the GPU, for GGUF models; -1 for all.")] = 0,
) -> None:
    """Serve MODEL to devices until interrupted.

    Example:

        outrider verifier qwen2.5-coder-1.5b-onnx --port 8700
    """
    try:
        from cloud_verifier.service import create_server
    except ImportError as error:
        raise MissingExtra(f'the service needs {error.name}; run: pip install "outrider[server]"') from None
    if not 1 <= sessions <= 1024:
        raise InvalidParameter(f"--sessions is {sessions}; give a number from 1 to 1024")
    listener = _listen(host, port)
    settings = EngineSettings(
        num_threads=threads,
        max_context=context,
        max_sequences=sessions,
        provider=provider,
        num_gpu_layers=gpu_layers,
    )
    with listener:
        folder = catalog.find(model)
        with show_progress() as progress:
            target = open_verifier(folder, settings, progress)
        server = create_server(target.loop)

        def stop(number: int, frame: object) -> None:
            server.should_exit = True

        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, stop)
            listener.listen()  # whoever reads the next line may come at once
            address, bound = listener.getsockname()[:2]
            at = f"[{address}]:{bound}" if ":" in address else f"{address}:{bound}"
            console.print(f"{folder.name} verifies at http://{at}  (Ctrl-C stops it)", markup=False)
            server.run(sockets=[listener])
            console.print("stopped")
        finally:
            target.close()


def _listen(host: str, port: int) -> socket.socket:
    """A socket bound to a loopback address; others wait until the service can tell devices apart."""
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback:
        raise InvalidParameter(
            f"{host} is not a loopback address, and the service has no credentials yet; use 127.0.0.1"
        )
    if not 0 <= port <= 65535:
        raise InvalidParameter(f"--port is {port}; give a number from 0 to 65535")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InvalidParameter(f"port {port} cannot be had ({error.strerror}); choose another with --port") from None
    return listener
