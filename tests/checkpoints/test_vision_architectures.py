from types import SimpleNamespace

import pytest
import transformers

from iei.checkpoints.vision_architectures import VISION_ARCHITECTURES
from tests.checkpoints.vision_checkpoints import FAMILIES


@pytest.mark.parametrize("model_type", VISION_ARCHITECTURES)
def test_every_row_names_a_class_of_transformers(model_type: str) -> None:
    assert hasattr(transformers, VISION_ARCHITECTURES[model_type].model)


def test_every_row_is_held_against_transformers() -> None:
    """A family in the table is a family in test_parity.py."""
    types = {getattr(transformers, family.config).model_type for family in FAMILIES.values()}
    assert types == set(VISION_ARCHITECTURES)


@pytest.mark.parametrize(
    ("model_type", "config", "stride"),
    [
        ("vit", {"patch_size": 16}, 16),
        ("vit", {"patch_size": [14, 14]}, 14),
        ("convnext", {"patch_size": 4, "depths": [3, 3, 9, 3]}, 32),
        ("resnet", {"depths": [3, 4, 6, 3]}, 32),
        ("hiera", {"patch_size": [7, 7], "patch_stride": [4, 4], "depths": [1, 2, 7, 2]}, 32),
        ("pvt", {"strides": [4, 2, 2, 2]}, 32),
    ],
)
def test_stride(model_type: str, config: dict[str, object], stride: int) -> None:
    assert VISION_ARCHITECTURES[model_type].stride(SimpleNamespace(**config)) == stride


def test_patches_begin_after_registers() -> None:
    assert VISION_ARCHITECTURES["dinov3_vit"].first_patch(SimpleNamespace(num_register_tokens=4)) == 5
    assert VISION_ARCHITECTURES["deit"].first_patch(SimpleNamespace()) == 2
