from __future__ import annotations

from pathlib import Path

import pytest

from iei.checkpoints.checkpoint import find_folder, read_checkpoint
from iei.checkpoints.demo import VERSION
from iei.checkpoints.families import FAMILIES
from iei.checkpoints.sentence_transformers import Pipeline
from iei.checkpoints.tokenizer import TOKENIZER_FILE
from tests.checkpoints.text_checkpoints import write_text_checkpoint
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.load_requests import load_request


@pytest.mark.parametrize("family", ["vit", "bert", "clip", "siglip"])
def test_a_complete_checkpoint_has_the_sides_of_its_family(family: str, tmp_path: Path) -> None:
    write = write_checkpoint if family == "vit" else write_text_checkpoint
    checkpoint = read_checkpoint(write(family, tmp_path))
    sides = {"image": checkpoint.geometry, "text": checkpoint.text}
    assert tuple(name for name, side in sides.items() if side) == FAMILIES[family]
    assert (checkpoint.folder, checkpoint.model_type, checkpoint.revision) == (tmp_path, family, None)


def test_two_towers_without_a_tokenizer_are_for_pictures_only(tmp_path: Path) -> None:
    """As in checkpoints that carry a CLIP for its pictures alone."""
    write_text_checkpoint("clip", tmp_path)
    (tmp_path / TOKENIZER_FILE).unlink()
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint.geometry is not None
    assert checkpoint.text is None


@pytest.mark.parametrize(("family", "lowercase"), [("clip", False), ("siglip", True)])
def test_texts_of_two_towers_stay_in_the_space_of_the_pictures(family: str, lowercase: bool, tmp_path: Path) -> None:
    files = read_checkpoint(write_text_checkpoint(family, tmp_path)).text
    assert files is not None
    assert files.pipeline == Pipeline(("pooler",), normalize=False, lowercase=lowercase)
    assert files.tokenizer.path == tmp_path / TOKENIZER_FILE


def test_the_commit_of_a_folder_in_the_cache_is_known(tmp_path: Path) -> None:
    folder = write_checkpoint("vit", tmp_path / "snapshots" / "0123abcd")
    assert read_checkpoint(folder).revision == "0123abcd"


def test_the_demo_is_found_by_its_id(tmp_path: Path) -> None:
    folder = find_folder(load_request("demo", "demo", cache_dir=tmp_path))
    assert folder == tmp_path / VERSION
    assert read_checkpoint(folder).model_type == "vit"


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    write_checkpoint("vit", tmp_path)
    assert find_folder(load_request("tiny", str(tmp_path))) == tmp_path
