import pytest
import transformers

from iei.checkpoints.text_architectures import TEXT_ARCHITECTURES, TWO_TOWERS
from iei.checkpoints.vision_architectures import VISION_ARCHITECTURES
from iei.models.spec import POOLED
from tests.checkpoints.text_checkpoints import TEXT_FAMILIES, TWO_TOWER_FAMILIES


@pytest.mark.parametrize("model_type", TEXT_ARCHITECTURES)
def test_every_row_names_a_class_of_transformers(model_type: str) -> None:
    row = TEXT_ARCHITECTURES[model_type]
    assert getattr(transformers, row.model).config_class.model_type == model_type
    assert set(row.poolings) < set(POOLED)


@pytest.mark.parametrize("model_type", TWO_TOWERS)
def test_every_pair_of_towers_has_both_ways_in(model_type: str) -> None:
    both = getattr(transformers, TWO_TOWERS[model_type].model)
    assert callable(both.get_text_features)
    assert callable(both.get_image_features)
    assert model_type in VISION_ARCHITECTURES, "its image side is described there"


def test_every_row_is_held_against_transformers() -> None:
    """A family in the table is a family in test_text_parity.py, or in test_two_towers.py."""
    types = {getattr(transformers, family.config).model_type for family in TEXT_FAMILIES.values()}
    assert types == set(TEXT_ARCHITECTURES)
    assert set(TWO_TOWER_FAMILIES) == set(TWO_TOWERS)


@pytest.mark.parametrize(
    ("model_type", "rows", "pad_id", "longest"),
    [("bert", 512, 0, 512), ("roberta", 514, 1, 512), ("mpnet", 514, 1, 512), ("qwen3", 32768, None, 32768)],
)
def test_positions_that_padding_takes_up_are_not_for_texts(
    model_type: str, rows: int, pad_id: int | None, longest: int
) -> None:
    assert TEXT_ARCHITECTURES[model_type].max_positions(rows, pad_id) == longest
