import pytest

from iei.checkpoints.families import supported
from iei.checkpoints.text_architectures import TEXT_ARCHITECTURES, TWO_TOWERS
from iei.checkpoints.vision_architectures import VISION_ARCHITECTURES
from iei.errors import StartupError

ROWS = {*VISION_ARCHITECTURES, *TEXT_ARCHITECTURES, *TWO_TOWERS}


@pytest.mark.parametrize("model_type", sorted(ROWS))
def test_what_has_a_row_is_supported(model_type: str) -> None:
    assert supported(model_type) == model_type


@pytest.mark.parametrize("model_type", ["gpt2", "siglip2", "vit_mae", "", None, 7, ["vit"]])
def test_what_has_no_row_is_refused_by_name(model_type: object) -> None:
    with pytest.raises(StartupError) as caught:
        supported(model_type)
    assert repr(model_type) in str(caught.value)
    assert all(name in str(caught.value) for name in ROWS)
    assert str(caught.value).endswith(".")
