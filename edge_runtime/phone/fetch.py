"""Fetches the app's libraries from npm, each of the one version that was reviewed, into the folder that is served.

python -m edge_runtime.phone.fetch
"""

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

__all__ = ["LIBRARIES", "npm_package"]

LIBRARIES = Path(__file__).parent / "app" / "lib"
# Of each package: its hash, and which of its files lie where.
PACKAGES = {
    "onnxruntime-web@1.30.0": (
        "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
        {
            "dist/ort.wasm.bundle.min.mjs": "onnxruntime.mjs",
            "dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
        },
    ),
    "@huggingface/tokenizers@0.2.0": (
        "2800014c83b8186b2e4210c20672f1fb65a12cef85d7e95e0f2003e022611b4a",
        {"dist/tokenizers.min.mjs": "tokenizers.mjs", "LICENSE": "tokenizers.LICENSE"},
    ),
    "@huggingface/jinja@0.5.11": (
        "c92401a23cdef23be5a2773eafc22db6723e113380aa02fedd0ca40ceb123f29",
        {"dist/index.js": "jinja.mjs", "LICENSE": "jinja.LICENSE"},
    ),
    "@msgpack/msgpack@3.1.3": (
        "1fef5cd691fbe3ea2695ca12c8c01a5c2c50e7014486d32037e0242c1c24bd36",
        {"dist.esm/": "msgpack/", "LICENSE": "msgpack.LICENSE"},
    ),
}


def npm_package(package: str, sha256: str) -> bytes:
    """The package's archive. Ends the program when there is no npm, when that has no such package for us, or when the
    package is another than was reviewed."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("there is no npm; install it and run this again")
    with tempfile.TemporaryDirectory() as scratch:
        packed = subprocess.run([npm, "pack", "--silent", package], cwd=scratch, stdout=subprocess.DEVNULL)
        if packed.returncode:
            raise SystemExit(f"npm could not fetch {package}; check the network and run this again")
        [file] = Path(scratch).glob("*.tgz")
        content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SystemExit(f"{package} is not what was reviewed; nothing of it was used")
    return content


def fetch(folder: Path) -> None:
    """Everything anew into `folder`, which appears when all of it is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        new = Path(scratch) / "lib"
        for package, (sha256, files) in PACKAGES.items():
            with tarfile.open(fileobj=io.BytesIO(npm_package(package, sha256))) as archive:
                for member in archive:
                    name = member.name.removeprefix("package/")
                    for source, place in files.items():
                        is_wanted = name.startswith(source) and name.endswith((".mjs", ".wasm", "LICENSE", "index.js"))
                        content = archive.extractfile(member) if is_wanted else None
                        if content is not None:
                            file = new / (place + name.removeprefix(source))
                            file.parent.mkdir(parents=True, exist_ok=True)
                            file.write_bytes(content.read())
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)


if __name__ == "__main__":
    fetch(LIBRARIES)
