"""The app for phones at `/phone/`: its files as they are, and a drafter to take along, beside a verifier's doors.

The files are open to all, as there is nothing in them; the drafter is for who is let in. Knows nothing of sessions: the
app opens those as any device does.
"""

import hashlib
from pathlib import Path

import msgspec
from fastapi import Depends, FastAPI, Response
from fastapi.responses import FileResponse

from cloud_verifier.schemas import JSON
from cloud_verifier.security import credential_of
from edge_runtime.api.site import HEADERS, TYPES
from edge_runtime.phone.fetch import LIBRARIES
from outrider.errors import InvalidParameter, MissingExtra, VocabularyMismatch
from outrider.manifest import ModelFolder

__all__ = ["PhoneSite"]

APP = Path(__file__).parent / "app"
SHARED = Path(__file__).parent.parent / "api" / "page"  # with the device's own page
ROOT = "/phone/"
DRAFTER = ROOT + "drafter/"
WORKER = "sw.js"
KINDS = {**TYPES, ".mjs": "text/javascript", ".wasm": "application/wasm", ".png": "image/png"}
KINDS |= {".webmanifest": "application/manifest+json"}
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types outrider"
)


class PhoneSite:
    """Raises InvalidParameter for a drafter that no browser runs, VocabularyMismatch, MissingExtra."""

    start = ROOT

    def __init__(self, drafter: ModelFolder, vocabulary: str) -> None:
        manifest = drafter.manifest
        if manifest.format != "onnx":
            raise InvalidParameter(f"{drafter.name} is {manifest.format}, and browsers run ONNX; give another --phone")
        if manifest.tokenizer_fingerprint != vocabulary:
            raise VocabularyMismatch(f"{drafter.name} has another vocabulary than the target; give another --phone")
        if not LIBRARIES.exists():
            raise MissingExtra("the app's libraries are not in this checkout; run: make phone")
        self._drafter = drafter
        files = {file.relative_to(APP).as_posix(): file for file in sorted(APP.rglob("*")) if file.suffix in KINDS}
        files |= {file.name: file for file in (SHARED / "answer.js", SHARED / "page.css", SHARED / "icon.svg")}
        self._files = {name: file.read_bytes() for name, file in files.items()}
        self._files[""] = self._files.pop("index.html")
        self._files[WORKER] = self._heading() + self._files[WORKER]
        self.paths = frozenset(ROOT + name for name in self._files)

    def _heading(self) -> bytes:
        """What the service worker keeps, and under which name: another one for any change."""
        digest = hashlib.sha256()
        for name, content in sorted(self._files.items()):
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        names = msgspec.json.encode(sorted(self._files.keys() - {WORKER}))
        return b'const VERSION = "%s";\nconst FILES = %s;\n' % (digest.hexdigest()[:16].encode(), names)

    def add(self, app: FastAPI) -> None:
        for name, content in self._files.items():
            self._add_file(app, name, content)
        drafter = self._drafter
        facts = msgspec.structs.replace(drafter.manifest, recipe=None, report=None, profiles={}, timings={})
        told = msgspec.json.encode({**msgspec.to_builtins(facts), "fingerprint": facts.fingerprint})

        async def manifest() -> Response:
            return Response(told, media_type=JSON, headers={"cache-control": "no-store"})

        options = {"methods": ["GET"], "include_in_schema": False, "dependencies": [Depends(credential_of)]}
        app.add_api_route(DRAFTER + "manifest.json", manifest, **options)  # type: ignore[arg-type]
        for name in facts.files:
            self._add_weights(app, name, options)

    def _add_file(self, app: FastAPI, name: str, content: bytes) -> None:
        kind = KINDS[Path(name or "index.html").suffix]
        headers = HEADERS | {"content-security-policy": POLICY}

        async def give() -> Response:
            return Response(content, headers=headers, media_type=kind)

        app.add_api_route(ROOT + name, give, include_in_schema=False)

    def _add_weights(self, app: FastAPI, name: str, options: dict[str, object]) -> None:
        file = self._drafter.path / name

        async def give() -> Response:
            return FileResponse(file, media_type="application/octet-stream", headers={"cache-control": "no-store"})

        app.add_api_route(DRAFTER + name, give, **options)  # type: ignore[arg-type]
