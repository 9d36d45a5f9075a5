"""Starts the programs that convert and quantise. Imports neither torch nor OpenVINO."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from pathlib import Path

from iei.errors import StartupError
from iei.machine import not_installed
from iei.runtimes.openvino.converted import Converted, read_converted

log = logging.getLogger("iei.engine")


def check_installed(model_id: str) -> None:
    """Checks that this installation has what models are converted with.

    Args:
        model_id: the model that would be converted: a folder or an id of the hub.

    Raises:
        StartupError: it has not; how the model can be served nevertheless.
    """
    if missing := not_installed("torch", "transformers"):
        raise StartupError(
            f"{model_id} has not been converted for OpenVINO, and {' and '.join(missing)}, which convert it, are not "
            f"installed here: run `iei export FOLDER --model {model_id}` where they are and serve that folder, or use "
            "an image that has torch."
        )


def convert(checkpoint: Path, folder: Path, *, allow_pickle: bool) -> Converted:
    """Converts a checkpoint into the empty `folder`.

    Returns:
        What has been written there; perhaps only why the checkpoint can't be converted.

    Raises:
        StartupError: it can't be loaded, or the converter has died.
    """
    log.info("%s is converted for OpenVINO, once", checkpoint)
    _run("convert", str(checkpoint), str(folder), *(["--allow-pickle"] if allow_pickle else []))
    return read_converted(folder)


def quantize(checkpoint: Path, converted: Path, calibration: Path | None, folder: Path) -> Converted:
    """Writes an int8 version of a converted model into the empty `folder`.

    Args:
        checkpoint: the folder of the checkpoint that was converted.
        converted: the folder of the converted model.
        calibration: a folder of pictures; None: drawn ones.
        folder: where to write.

    Raises:
        StartupError: there are too few pictures, or the program has died.
    """
    log.info("%s is quantised, once; this takes some minutes", checkpoint)
    pictures = ["--calibration", str(calibration)] if calibration else []
    _run("quantize", str(checkpoint), str(converted), str(folder), *pictures)
    return read_converted(folder)


def _run(program: str, *arguments: str) -> None:
    """Runs a program of this folder, which takes its libraries and its memory with it when it ends.

    Raises:
        StartupError: it failed; what it said.
    """
    with (
        tempfile.TemporaryFile("w+") as reason,
        tempfile.TemporaryFile("w+") as noise,
        # Of its input it reads the end alone, which comes with this process's own.
        subprocess.Popen(
            [sys.executable, "-m", f"iei.runtimes.openvino.{program}", *arguments],
            stdin=subprocess.PIPE,
            stdout=reason,
            stderr=noise,
        ) as process,
    ):
        if status := process.wait():
            reason.seek(0)
            noise.seek(0)
            log.debug("%s", noise.read())
            raise StartupError(reason.read().strip() or f"The program {program} has ended with status {status}.")
