"""A model hub on a local port that can misbehave: cut connections, ignore ranges, answer with other statuses."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # "owner/repo/resolve/REVISION/FILE" -> content
    models: dict[str, dict[str, Any]] = field(default_factory=dict)  # "owner/repo" -> what the API says
    cut_after: int | None = None  # bytes of each answer before the connection breaks
    num_cuts: int = 10**6
    has_ranges: bool = True
    status: int | None = None
    seen: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range of each request


@contextmanager
def serve_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Stay silent."""

        def do_GET(self) -> None:
            path, requested = self.path.split("?")[0].lstrip("/"), self.headers.get("Range")
            hub.seen.append((path, requested))
            body = hub.files.get(path)
            if path.startswith("api/models/") and path[11:] in hub.models:
                body = json.dumps(hub.models[path[11:]]).encode()
            if hub.status or body is None:
                self.send_response(hub.status or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = 0
            if requested and hub.has_ranges:
                start = int(requested.removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            if hub.cut_after is not None and hub.num_cuts > 0:
                hub.num_cuts -= 1
                self.wfile.write(body[start : start + hub.cut_after])
                self.close_connection = True
            else:
                self.wfile.write(body[start:])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
