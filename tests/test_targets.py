"""What is to become of a request's inputs, as far as no model has to run for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from iei.errors import InvalidField
from iei.models.spec import Matryoshka, ModelSpec, TextTower
from iei.requests import ImageInput, Options
from iei.targets import check_dimensions, default_norms, resolve_targets
from tests.engine.runtimes_for_tests import DIM, SPEC


def _warnings(spec: ModelSpec, options: Options, allowed: Any = "any") -> tuple[str, ...]:
    targets = resolve_targets(spec, [ImageInput("x")], options, None)
    return check_dimensions(spec, targets.values(), options, allowed)


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        (None, "model 'known' is not known to be trained for shorter vectors"),
        (False, "model 'known' was not trained for shorter vectors"),
        ((1, 3), "model 'known' was trained for vectors of 1, 3 values, not 2"),
    ],
)
class TestUntrainedDimensions:
    def test_come_with_a_warning(self, trained: Matryoshka, words: str) -> None:
        (warning,) = _warnings(replace(SPEC, matryoshka=trained), Options(dimensions=DIM - 1))
        assert words in warning
        assert "its first 2 values alone" in warning

    def test_or_are_refused(self, trained: Matryoshka, words: str) -> None:
        with pytest.raises(InvalidField, match="IEI_DIMENSIONS=trained") as refused:
            _warnings(replace(SPEC, matryoshka=trained), Options(dimensions=DIM - 1), allowed="trained")
        assert words in refused.value.message
        assert refused.value.field == "dimensions"

    @pytest.mark.parametrize("allowed", ["any", "trained"])
    @pytest.mark.parametrize("dimensions", [None, DIM])
    def test_whole_vectors_are_nothing_special(
        self, trained: Matryoshka, words: str, dimensions: int | None, allowed: str
    ) -> None:
        assert not _warnings(replace(SPEC, matryoshka=trained), Options(dimensions=dimensions), allowed=allowed)


@pytest.mark.parametrize("trained", [True, (2, 3)])
@pytest.mark.parametrize("allowed", ["any", "trained"])
def test_trained_dimensions_come_as_they_are(trained: Matryoshka, allowed: str) -> None:
    assert not _warnings(replace(SPEC, matryoshka=trained), Options(dimensions=2), allowed=allowed)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (None, {"image": False, "text": True}),
        (True, {"image": True, "text": True}),
        (False, {"image": False, "text": False}),
    ],
)
def test_the_server_or_else_the_model_says_whether_vectors_are_normalised(
    server: bool | None, expected: dict[str, bool]
) -> None:
    spec = replace(SPEC, text=TextTower("tokenizer.json", {"mean": DIM}, max_tokens=8, pooling="mean"))
    assert default_norms(spec, server) == expected


@pytest.mark.parametrize("trained", [None, True, False, (64, 128)])
def test_a_spec_keeps_what_it_was_trained_for(trained: Matryoshka) -> None:
    """On its way from the engine to the workers."""
    assert ModelSpec.from_json(replace(SPEC, matryoshka=trained).to_json()).matryoshka == trained
