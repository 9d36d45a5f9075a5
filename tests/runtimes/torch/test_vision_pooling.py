import numpy as np
import pytest
import torch

from iei.runtimes.torch.vision_pooling import VISION_POOLINGS, TokenLayout, as_tokens, poolings_of

TOKENS = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0))
LAYOUT = TokenLayout(class_token=0, first_patch=3)
PATCHES = TOKENS.numpy()[:, 3:]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cls", TOKENS.numpy()[:, 0]),
        ("mean", TOKENS.numpy().mean(1)),
        ("patch_mean", PATCHES.mean(1)),
        ("max", PATCHES.max(1)),
        ("patches", PATCHES),
        ("tokens", TOKENS.numpy()),
    ],
)
def test_takes_the_tokens_that_its_name_says(name: str, expected: np.ndarray) -> None:
    np.testing.assert_allclose(VISION_POOLINGS[name](TOKENS, LAYOUT).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("name", VISION_POOLINGS)
def test_half_precision_is_pooled_in_float32(name: str) -> None:
    """A mean of 4096 values near 1 in float16 is off in the third digit."""
    tokens = 1 + torch.rand(1, 4096, 3, generator=torch.Generator().manual_seed(0)) / 64
    pooled = VISION_POOLINGS[name](tokens.half(), LAYOUT)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, VISION_POOLINGS[name](tokens.half().float(), LAYOUT), atol=1e-6, rtol=0)


def test_no_class_token_no_cls() -> None:
    assert "cls" not in poolings_of(TokenLayout(class_token=None, first_patch=0))
    assert "cls" in poolings_of(LAYOUT)


def test_feature_maps_are_read_row_by_row() -> None:
    feature_map = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    tokens = as_tokens(feature_map)
    assert tokens.shape == (2, 20, 3)
    assert tokens[1, 1 * 5 + 2].tolist() == feature_map[1, :, 1, 2].tolist()
