"""What a job on Ray notes in the folder of its result, so that it can go on, and so that no other job mixes with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pyarrow import fs
from ray.data.checkpoint import CheckpointConfig

from iei import __version__
from iei.bulk.fingerprint import differences
from iei.errors import StartupError

FOLDER = ".ray"
"""Below the result. Readers of Parquet pass over names that begin with a dot."""


class Notes:
    """The notes of one result.

    Args:
        out: the result's folder, or its URL.
    """

    def __init__(self, out: str) -> None:
        self._out = out.rstrip("/")
        self._files: Any
        self._path: str
        self._files, self._path = fs.FileSystem.from_uri(self._out) if "://" in out else (fs.LocalFileSystem(), out)

    def check(self, job: Mapping[str, Any]) -> None:
        """Notes what the job is, if it is the first.

        Args:
            job: what decides its rows: the model, what is wanted, and the column of the input that tells rows apart.

        Raises:
            StartupError: another one has been here, or one that can't go on.
        """
        path = f"{self._path}/{FOLDER}/job.json"
        here = json.loads(json.dumps({"iei": __version__, **job}, default=str))
        if self._files.get_file_info(path).type == fs.FileType.NotFound:
            if self._parts():
                raise StartupError(f"{self._out} has files that no job on Ray has written: give another folder.")
            self._files.create_dir(f"{self._path}/{FOLDER}", recursive=True)
            with self._files.open_output_stream(path) as file:
                file.write(json.dumps(here).encode())
            return
        with self._files.open_input_stream(path) as file:
            there = json.loads(file.read())
        if found := [f"{name} ({now!r} now, {then!r} then)" for name, now, then in differences(here, there)]:
            raise StartupError(f"{self._out} is of another job: {', '.join(found)}. Give another folder.")
        if job["ids"] is None and self._parts():
            raise StartupError(
                f"{self._out} has files already, and shards of WebDataset have no ids that Ray could go on by: remove "
                "them, or give another folder."
            )

    def checkpoint(self, ids: str) -> CheckpointConfig:
        """What Ray notes: which rows are written, by their values in that column. It stays when all are."""
        return CheckpointConfig(ids, f"{self._out}/{FOLDER}/rows", delete_checkpoint_on_success=False)

    def _parts(self) -> bool:
        found = self._files.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        return any(file.type == fs.FileType.File for file in found)
