from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

from iei.runtimes.torch.onednn import PackedLinear, pack_linears


class Layers(nn.Module):
    """Two linear layers with something in between, and a way on that a test chooses."""

    def __init__(self, activation: nn.Module, forward: Callable[[Layers, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4, bias=False)
        self.activation = activation
        self.way = forward or (lambda layers, values: layers.second(layers.activation(layers.first(values))))

    def forward(self, values: Tensor) -> Tensor:
        return self.way(self, values)


def packed(layers: Layers) -> tuple[bool, Tensor, Tensor]:
    """Whether it was replaced, and its outputs before and after, for values that the probe has not seen."""
    values = torch.randn(3, 5, 8)
    with torch.inference_mode():
        before = layers(values)
        done = pack_linears(layers, lambda: [layers(torch.ones(2, 3, 8))])
        return done, before, layers(values)


@pytest.mark.parametrize("gelu", [nn.GELU(), nn.GELU("tanh"), GELUActivation()], ids=["exact", "tanh", "transformers"])
def test_a_gelu_that_follows_a_linear_layer_becomes_part_of_it(gelu: nn.Module) -> None:
    layers = Layers(gelu)
    done, before, after = packed(layers)
    assert done
    assert isinstance(layers.first, PackedLinear)
    assert isinstance(layers.second, PackedLinear)
    assert isinstance(layers.activation, nn.Identity)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


def test_other_activations_stay_where_they_are() -> None:
    layers = Layers(nn.SiLU())
    done, before, after = packed(layers)
    assert done
    assert isinstance(layers.activation, nn.SiLU)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "way",
    [
        lambda self, values: self.second(self.activation(2 * self.first(values))),
        lambda self, values: self.second(self.activation(self.first(values)) + self.activation(self.first(-values))),
        lambda self, values: self.second(self.activation(self.activation(self.first(values)))),
    ],
    ids=["something in between", "used twice", "applied twice"],
)
def test_what_is_not_simply_a_linear_layer_and_its_gelu_is_computed_right(
    way: Callable[[Layers, Tensor], Tensor],
) -> None:
    _, before, after = packed(Layers(nn.GELU(), way))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


def test_an_output_that_is_needed_without_its_gelu_too_leaves_the_model_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def residual(self: Layers, values: Tensor) -> Tensor:
        first = self.first(values)
        result: Tensor = self.second(self.activation(first) + first)
        return result

    layers = Layers(nn.GELU(), residual)
    with caplog.at_level(logging.WARNING, "iei.engine"):
        done, before, after = packed(layers)
    assert not done
    assert type(layers.first) is nn.Linear
    assert isinstance(layers.activation, nn.GELU)
    assert torch.equal(after, before)


def test_a_model_that_looks_into_its_layers_stays_as_it_was() -> None:
    layers = Layers(nn.GELU(), lambda self, values: self.second(self.first(values.to(self.first.weight.dtype))))
    done, before, after = packed(layers)
    assert not done
    assert type(layers.first) is nn.Linear
    assert torch.equal(after, before)


def test_kinds_of_linear_layers_are_left_alone() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    layers = Layers(nn.GELU(), lambda self, values: attention(values, values, values)[0])
    layers.attention = attention
    _, before, after = packed(layers)
    assert not isinstance(attention.out_proj, PackedLinear)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
