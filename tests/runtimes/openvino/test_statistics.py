"""What OpenVINO would tell its makers."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_is_sent() -> None:
    """In a process of its own: here, others may have imported OpenVINO before."""
    program = "import iei.runtimes.openvino.convert, openvino.tools.ovc.telemetry_utils as ovc; print(ovc.tm.__name__)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "openvino.tools.ovc.telemetry_stub"
