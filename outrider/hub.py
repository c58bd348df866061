"""Talks to a model hub over HTTP: what files a repository has, and one file's bytes, taken up where they broke off.

No retries against a hub that does not answer: one short connection attempt, then NoNetwork, so that another source can
be asked. Knows nothing about cards or model folders.
"""

import os
from pathlib import Path
from typing import Any

import httpx
import msgspec
from huggingface_hub import constants, get_token, hf_hub_url

from outrider.errors import FetchError, NoNetwork, UnknownModel
from outrider.part_file import PartFile, require_space
from outrider.progress import Progress

__all__ = ["RemoteFile", "Repository", "fetch_file", "read_repository"]

CONNECT_S = 3.0
READ_S = 30.0
MAX_CUTS = 3  # a connection that breaks while bytes flow is taken up again this often


class RemoteFile(msgspec.Struct, frozen=True):
    path: str
    num_bytes: int
    sha256: str | None  # the hub gives it for large files only


class Repository(msgspec.Struct, frozen=True):
    name: str
    revision: str  # a commit: what `read_repository` saw is what `fetch_file` gets
    licence: str
    files: list[RemoteFile]


def read_repository(name: str) -> Repository:
    """What the hub says about `owner/repo`. Raises UnknownModel, NoNetwork or FetchError."""
    url = f"{_endpoint()}/api/models/{name}"
    try:
        with _client() as client:
            response = client.get(url, params={"blobs": "true"})
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise _no_network(error) from None
    if response.status_code == 404:
        raise UnknownModel(f"the hub has no model {name}; see `outrider models` for the names known here")
    _check_status(response, name)
    try:
        return _parse_repository(name, response.json())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FetchError(f"the hub answered about {name} with something unreadable; try again later") from None


def fetch_file(
    repository: str, revision: str, file: RemoteFile, target: Path, partial: Path, progress: Progress, *, stage: str
) -> str:
    """Fetch one file to `target`, by way of `partial`; returns its SHA-256.

    Raises NoNetwork (what came so far is kept), WrongHash, DiskFull or FetchError.
    """
    url = hf_hub_url(repository, file.path, revision=revision, endpoint=_endpoint())
    with PartFile(partial / f"{target.name}.part", num_bytes=file.num_bytes, sha256=file.sha256) as part:
        if file.sha256 is None:
            part.restart()  # what another revision left could not be told apart
        require_space(partial, file.num_bytes - part.size, target.name)
        cuts = 0
        while part.size < file.num_bytes:
            before = part.size
            try:
                _stream(url, part, repository, progress, stage)
            except (httpx.RequestError, httpx.InvalidURL) as error:
                cuts += 1
                if part.size == before or cuts == MAX_CUTS:
                    raise _no_network(error) from None
        digest = part.finish(target)
        progress(stage, file.num_bytes, file.num_bytes)
        return digest


def _stream(url: str, part: PartFile, repository: str, progress: Progress, stage: str) -> None:
    headers = {"Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
    with _client() as client, client.stream("GET", url, headers=headers) as response:
        _check_status(response, repository)
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-")
        if response.status_code != 206 or not resumed:
            part.restart()
        for block in response.iter_raw():  # as it comes: a block that waits to be full is lost with the connection
            part.write(block)
            progress(stage, part.size, part.num_bytes)
    if part.size < part.num_bytes:
        part.reject(f"{part.size} bytes where {part.num_bytes} were expected")


def _client() -> httpx.Client:
    token = get_token()
    return httpx.Client(
        timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
        follow_redirects=True,
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def _check_status(response: httpx.Response, repository: str) -> None:
    status = response.status_code
    if status in (401, 403):
        raise FetchError(f"the hub gives {repository} to known people only; accept its terms there and set HF_TOKEN")
    if status == 404:
        raise FetchError(f"the hub no longer has that file of {repository}; pull another model")
    if status not in (200, 206):
        raise FetchError(f"the hub answered {status} for {repository}; try again later")


def _no_network(error: Exception) -> NoNetwork:
    return NoNetwork(f"the hub could not be reached ({type(error).__name__}); check the connection and run it again")


def _parse_repository(name: str, answer: dict[str, Any]) -> Repository:
    files = []
    for entry in answer["siblings"]:
        large = entry.get("lfs") or {}
        files.append(RemoteFile(str(entry["rfilename"]), int(entry["size"]), large.get("sha256")))
    licence = (answer.get("cardData") or {}).get("license", "unknown")
    return Repository(name, str(answer["sha"]), str(licence), files)
