"""CLIP and SigLIP: texts and pictures through one checkpoint, into one space."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from iei.errors import StartupError
from iei.inputs.geometry import to_pixels
from iei.inputs.tokens import encode
from iei.models.catalog import LoadRequest
from iei.models.spec import ImageTower, TextTower
from iei.runtimes.api import Model
from iei.runtimes.loading import load
from iei.runtimes.torch.weights import quiet
from tests.checkpoints.text_checkpoints import TWO_TOWER_FAMILIES, write_text_checkpoint
from tests.checkpoints.vision_checkpoints import write_checkpoint
from tests.load_requests import load_request
from tests.pictures import photos
from tests.runtimes.torch.parity import Vectors, assert_equal

pytestmark = pytest.mark.server

TEXTS = ("a photo of a cat", "The quick red fox JUMPS over the lazy dog!", "x")
PHOTOS = ("coffee", "rocket")


@pytest.fixture(scope="module", params=TWO_TOWER_FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_checkpoint(family, tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def runtime(checkpoint: Path) -> Model:
    return load(load_request("tiny", str(checkpoint), threads=1))


@pytest.fixture(scope="module")
def image(runtime: Model) -> ImageTower:
    assert runtime.spec.image is not None
    return runtime.spec.image


@pytest.fixture(scope="module")
def text(runtime: Model) -> TextTower:
    assert runtime.spec.text is not None
    return runtime.spec.text


@pytest.fixture(scope="module")
def model(family: str, checkpoint: Path) -> Any:
    with quiet():
        return getattr(transformers, {"clip": "CLIPModel", "siglip": "SiglipModel"}[family]).from_pretrained(checkpoint)


def _pixels(image: ImageTower) -> list[NDArray[np.generic]]:
    return [to_pixels(photos()[name], image.geometry) for name in PHOTOS]


def test_both_towers_share_a_space(runtime: Model, image: ImageTower, text: TextTower) -> None:
    """And give its vectors to requests that name no output."""
    assert image.pooling == text.pooling == "pooler"
    assert image.outputs["pooler"] == text.outputs["pooler"]
    assert runtime.spec.tower is image
    assert not text.normalize, "one request may hold both, and pictures are not normalised by themselves"


def test_equals_transformers_as_its_documentation_uses_it(
    family: str, checkpoint: Path, model: Any, runtime: Model, image: ImageTower, text: TextTower
) -> None:
    """The processor's pixels; texts padded to the longest (CLIP) or to the model's own length (SigLIP)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    words = TEXTS if family == "clip" else [words.lower() for words in TEXTS]
    padding = {"padding": True} if family == "clip" else {"padding": "max_length", "max_length": 64}
    tokens = tokenizer(list(words), return_tensors="pt", **padding)
    if family == "siglip":
        del tokens["attention_mask"]  # as the real checkpoints' `model_input_names` have it
        tokens.pop("token_type_ids", None)
    with torch.no_grad():
        texts = model.get_text_features(**tokens).pooler_output.numpy()
        pictures = model.get_image_features(
            **processor([photos()[name] for name in PHOTOS], return_tensors="pt")
        ).pooler_output.numpy()
    ours = runtime.run("text", [encode(words, text) for words in TEXTS], ["pooler"])
    _equal([row["pooler"] for row in ours], texts)
    ours = runtime.run("image", _pixels(image), ["pooler"])
    _equal([row["pooler"] for row in ours], pictures)


def _equal(ours: list[Vectors], theirs: Vectors) -> None:
    assert_equal(np.stack(ours), theirs)
    assert np.abs(ours[0] - ours[1]).max() > 1e-2, "inputs differ"


def test_texts_have_their_other_outputs(model: Any, runtime: Model, text: TextTower) -> None:
    outputs = {"mean", "max", "last", "pooler", "tokens"}
    assert set(text.outputs) == outputs
    ids = encode(TEXTS[0], text)
    padded = np.full(64 if text.lowercase else len(ids), 1)  # SigLIP's
    padded[: len(ids)] = ids
    with torch.no_grad():
        tokens = model.text_model(torch.tensor(padded)[None]).last_hidden_state[0, : len(ids)].numpy()
    (ours,) = runtime.run("text", [ids], list(text.outputs))
    expected = {"mean": tokens.mean(0), "max": tokens.max(0), "last": tokens[-1], "tokens": tokens}
    for name in outputs - {"pooler"}:
        assert_equal(ours[name], expected[name], name)


def test_pictures_keep_their_other_outputs(family: str, runtime: Model, tmp_path: Path) -> None:
    """Those of the same checkpoint without its text side."""
    alone = load(load_request("tiny", str(write_checkpoint(family, tmp_path)), threads=1))
    assert alone.spec.text is None
    assert alone.spec.image is not None
    assert runtime.spec.image is not None
    assert runtime.spec.image.outputs == alone.spec.image.outputs
    pixels, outputs = _pixels(alone.spec.image), list(alone.spec.image.outputs)
    for ours, theirs in zip(runtime.run("image", pixels, outputs), alone.run("image", pixels, outputs), strict=True):
        for name in outputs:
            assert np.abs(ours[name] - theirs[name]).max() <= 1e-5, name


def test_other_sizes_are_computed_as_well(runtime: Model, image: ImageTower) -> None:
    assert image.any_size
    pixels = np.asarray(photos()["coffee"].resize((320, 256)))
    assert runtime.run("image", [pixels], ["patches"])[0]["patches"].shape[0] == image.rows(pixels.shape).patches == 80


def test_company_makes_no_difference(runtime: Model, text: TextTower) -> None:
    ids = [encode(words, text) for words in TEXTS]
    among = runtime.run("text", ids, list(text.outputs))
    for position, words in enumerate(ids):
        (alone,) = runtime.run("text", [words], list(text.outputs))
        for name, array in alone.items():
            assert array.shape == among[position][name].shape
            assert np.abs(array - among[position][name]).max() <= 1e-5, name


def test_case_makes_no_difference(runtime: Model, text: TextTower) -> None:
    """SigLIP was trained on lowercased texts; not every tokenizer.json of it says so."""
    upper, lower = runtime.run("text", [encode(words, text) for words in ("A Cat", "a cat")], ["pooler"])
    assert np.array_equal(upper["pooler"], lower["pooler"])


def test_clip_takes_the_token_that_transformers_takes(tmp_path: Path) -> None:
    """Two rules: the highest id (checkpoints whose config says that the end of a text is 2), or the first end."""
    write_text_checkpoint("clip", tmp_path)
    config = transformers.CLIPConfig.from_pretrained(tmp_path)
    for eos_token_id in (2, 511):
        config.text_config.eos_token_id = eos_token_id
        config.save_pretrained(tmp_path)
        runtime = load(load_request("tiny", str(tmp_path), threads=1))
        assert runtime.spec.text is not None
        model = transformers.CLIPModel.from_pretrained(tmp_path)
        assert model.config.text_config.eos_token_id == eos_token_id
        ids = encode(TEXTS[0], runtime.spec.text)
        with torch.no_grad():
            expected = model.get_text_features(torch.tensor(ids[None].astype(np.int64))).pooler_output[0].numpy()
        among = [ids, encode(TEXTS[1], runtime.spec.text)]
        assert np.abs(runtime.run("text", among, ["pooler"])[0]["pooler"] - expected).max() <= 1e-4


def test_siglip_pads_to_its_own_length_with_its_own_token(tmp_path: Path) -> None:
    runtime = load(load_request("tiny", str(write_text_checkpoint("siglip", tmp_path, pad_token="<pad>")), threads=1))
    tower = runtime.spec.text
    assert tower is not None
    assert tower.max_tokens == 64
    ids = encode("a cat", tower)
    assert len(ids) < 64, "padding is not counted, nor sent through shared memory"
    padded = np.concatenate([ids, np.zeros(64 - len(ids), np.int32)])
    (short,), (long,) = (runtime.run("text", [array], ["pooler"]) for array in (ids, padded))
    assert np.array_equal(short["pooler"], long["pooler"])


@pytest.mark.parametrize("part", ["text_model.encoder.layers.1", "text_projection", "visual_projection"])
def test_a_tower_that_lacks_weights_stops_the_start(part: str, tmp_path: Path) -> None:
    write_text_checkpoint("clip", tmp_path)
    _edit(tmp_path, lambda name: part not in name)
    with pytest.raises(StartupError, match=rf"no complete CLIPModel: these weights are missing: .*{part}"):
        load(load_request("tiny", str(tmp_path)))


def _edit(folder: Path, keep: Callable[[str], bool]) -> None:
    file = folder / "model.safetensors"
    weights = {name: value.clone() for name, value in load_file(file).items() if keep(name)}
    file.unlink()
    save_file(weights, file, metadata={"format": "pt"})


class TestDefaultPooling:
    @pytest.mark.parametrize("pooling", ["cls", "patch_mean", "last"])
    def test_must_be_one_that_both_towers_have(self, pooling: str, tmp_path: Path) -> None:
        write_text_checkpoint("clip", tmp_path)
        with pytest.raises(StartupError, match=rf"can't give the pooling {pooling} .* one of mean, max, pooler\."):
            load(load_request("tiny", str(tmp_path), pooling=pooling))

    def test_is_that_of_both_towers(self, tmp_path: Path) -> None:
        write_text_checkpoint("clip", tmp_path)
        assert _defaults(load_request("tiny", str(tmp_path), pooling="mean")) == ("mean", "mean")
        assert _defaults(load_request("tiny", str(tmp_path))) == ("pooler", "pooler")

    def test_of_a_further_model_is_its_own_where_it_lacks_the_servers(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its vectors of texts and pictures stay in one space."""
        write_text_checkpoint("clip", tmp_path)
        request = load_request("tiny", str(tmp_path), pooling="last", pooling_optional=True)
        assert _defaults(request) == ("pooler", "pooler")
        assert "can't give the pooling last (only texts have a last token): its default is pooler" in caplog.text


def _defaults(request: LoadRequest) -> tuple[str, str]:
    spec = load(request).spec
    assert spec.image is not None
    assert spec.text is not None
    return spec.image.pooling, spec.text.pooling
