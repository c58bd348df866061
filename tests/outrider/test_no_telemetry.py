"""Libraries that would report to their makers are kept from it before they are loaded."""

import subprocess
import sys
from pathlib import Path


def test_openvino_reports_nothing(tmp_path: Path) -> None:
    program = "import outrider.engines.openvino, sys; print(sys.modules['openvino_telemetry'])"
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=home, check=True)
    assert done.stdout.strip() == "None"
    assert list(tmp_path.iterdir()) == []  # it would keep an id and a count there
