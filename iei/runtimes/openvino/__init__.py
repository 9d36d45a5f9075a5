"""The OpenVINO runtime: computes checkpoints on a CPU, converted once from torch and kept on disk.

OpenVINO and NNCF send usage statistics to Google Analytics unless the package for it can't be imported. A server of
other people's pictures calls nobody.
"""

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # what Python calls not importable
