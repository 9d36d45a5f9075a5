"""`iei export`: a folder that serves a model without torch and transformers, and without converting it again."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from iei.checkpoints.checkpoint import find_folder, read_checkpoint
from iei.checkpoints.files import EXPORTED
from iei.checkpoints.folders import descriptions, local_folder
from iei.errors import StartupError
from iei.models.catalog import read_catalog
from iei.runtimes.openvino.converter import check_installed, convert
from iei.runtimes.openvino.supported import refusal
from iei.settings import Settings
from iei.telemetry.logs import configure

log = logging.getLogger("iei")


def run(settings: Settings, folder: Path) -> None:
    """Writes the first model of the settings into a new folder, converted for OpenVINO.

    Raises:
        StartupError: the folder has something in it, the model can't be had or converted, or torch is not installed.
        OSError: the folder can't be written.
    """
    configure(settings.logs)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StartupError(f"{folder} is there already: name a new folder, or delete it first.")
    request, *_ = read_catalog(settings.models).load_requests("cpu", settings.load)
    if local_folder(request.entry.id) is None:  # before it is downloaded
        check_installed(request.entry.id)
    checkpoint = read_checkpoint(find_folder(request))
    if checkpoint.is_exported:
        raise StartupError(f"{checkpoint.folder} has been exported already: copy it.")
    check_installed(request.entry.id)
    if reason := refusal(request, checkpoint):
        raise StartupError(f"{request.entry.id} can't be exported for OpenVINO: {reason}.")
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for file in descriptions(checkpoint.folder):
            (draft / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(checkpoint.folder / file, draft / file)
        (draft / EXPORTED).mkdir()
        converted = convert(checkpoint.folder, draft / EXPORTED, allow_pickle=settings.load.allow_pickle)
        if converted.refusal:
            raise StartupError(f"{request.entry.id} can't be exported: {converted.refusal}.")
        draft.chmod(0o755)  # mkdtemp's folders are for one user only
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    log.info("%s is exported: IMAGE_EMBEDDING_MODEL=%s serves it, on CPUs", request.entry.id, folder)
