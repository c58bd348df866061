"""Fetches a Chromium for the browser's tests into a folder: from npm, whole with its libraries, without root.

python -m tests.browser.fetch FOLDER
"""

import io
import platform
import sys
import tarfile
from pathlib import Path

import brotli

from edge_runtime.phone.fetch import npm_package

PACKAGE = "@sparticuz/chromium@147.0.0"
SHA256 = "18fe5404ce845594cd7d592fc07f37a19514079ba4d9c27192ad8b908743f16b"
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}/fonts</dir><cachedir>{folder}/fonts-cache</cachedir></fontconfig>
"""


def fetch(folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(npm_package(PACKAGE, SHA256))) as archive:

        def unpacked(name: str) -> bytes:
            file = archive.extractfile(f"package/bin/{name}.br")
            assert file is not None
            return bytes(brotli.decompress(file.read()))

        for name in ("al2023.tar", "fonts.tar", "swiftshader.tar"):
            with tarfile.open(fileobj=io.BytesIO(unpacked(name))) as inner:
                inner.extractall(folder, filter="data")
        (folder / "fonts.conf").write_text(FONTS.format(folder=folder.resolve()))
        chromium = folder / "chromium"
        chromium.write_bytes(unpacked("chromium"))
    chromium.chmod(0o755)


if __name__ == "__main__":
    to = Path(sys.argv[1])
    to.mkdir(parents=True, exist_ok=True)
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        fetch(to)
    else:
        print("No browser is packaged for this machine; set OUTRIDER_BROWSER to a Chromium for the tests in one.")
