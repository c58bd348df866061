"""The page at `/`: files as they are, under a policy that lets nothing in from elsewhere, and the switch that it shows.

Knows nothing of answers: the page asks for those as any app does.
"""

from pathlib import Path

import msgspec
from fastapi import FastAPI, Request, Response

from cloud_verifier.schemas import JSON
from cloud_verifier.security import is_own_name, is_own_origin
from edge_runtime.api.modes import Modes
from edge_runtime.api.schemas import LinkWish, read
from outrider.errors import Forbidden, InvalidParameter

__all__ = ["PAGE", "add_page"]

FOLDER = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PAGE = frozenset({"/", "/page.css", "/page.js", "/answer.js", "/stream.js", "/icon.svg"})
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


class LinkState(msgspec.Struct, frozen=True):
    """Whether there is a way to a verifier, and whether it is cut on purpose."""

    exists: bool
    is_cut: bool


def add_page(app: FastAPI, modes: Modes) -> None:
    def add_file(path: str) -> None:
        file = FOLDER / (path[1:] or "index.html")
        content = file.read_bytes()

        async def give() -> Response:
            return Response(content, headers=HEADERS, media_type=TYPES[file.suffix])

        app.add_api_route(path, give, include_in_schema=False)

    async def link(request: Request) -> Response:
        _check_near(request)
        if request.method == "POST":
            wish = read(await request.body(), request.headers.get("content-type", ""), LinkWish)
            if not modes.has_link:
                raise InvalidParameter("is_cut is for a verifier elsewhere; this server has its target here")
            modes.cut(is_cut=wish.is_cut)
        state = LinkState(modes.has_link, modes.is_cut)
        return Response(msgspec.json.encode(state), media_type=JSON, headers={"cache-control": "no-store"})

    for path in sorted(PAGE):
        add_file(path)
    app.add_api_route("/link", link, methods=["GET", "POST"], include_in_schema=False)


def _check_near(request: Request) -> None:
    """Raises Forbidden for who is on another machine, and for web pages but ours."""
    if request.client is None or not is_own_name(request.client.host):
        raise Forbidden("the link is switched on this device alone; open the page there")
    if "origin" in request.headers and not is_own_origin(request.scope):
        raise Forbidden("the link is switched by this server's own page; open that")
