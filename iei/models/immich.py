"""The models of immich's smart search, by immich's names.

immich knows the length of a model's vectors by its name, and makes the column of its database for it: names and lengths
are those of `CLIP_MODEL_INFO` in its server's `constants.ts` (immich 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class ImmichModel(NamedTuple):
    """What immich means by a name."""

    dim: int
    """Length of the vectors that immich expects."""
    hub_id: str | None = None
    """The same weights on the hub, in files that IEI can load. None: there are none."""


def clean_name(name: str) -> str:
    """`name` as immich's server looks it up in its own table."""
    return name.rpartition("/")[2].replace(":", "_")


IMMICH_MODELS: Mapping[str, ImmichModel] = {
    "RN101__openai": ImmichModel(512),
    "RN101__yfcc15m": ImmichModel(512),
    "RN50__cc12m": ImmichModel(1024),
    "RN50__openai": ImmichModel(1024),
    "RN50__yfcc15m": ImmichModel(1024),
    "RN50x16__openai": ImmichModel(768),
    "RN50x4__openai": ImmichModel(640),
    "RN50x64__openai": ImmichModel(1024),
    "LABSE-Vit-L-14": ImmichModel(768),
    "ViT-B-16-SigLIP-256__webli": ImmichModel(768, "google/siglip-base-patch16-256"),
    "ViT-B-16-SigLIP-384__webli": ImmichModel(768, "google/siglip-base-patch16-384"),
    "ViT-B-16-SigLIP-512__webli": ImmichModel(768, "google/siglip-base-patch16-512"),
    "ViT-B-16-SigLIP-i18n-256__webli": ImmichModel(768, "google/siglip-base-patch16-256-multilingual"),
    "ViT-B-16-SigLIP2__webli": ImmichModel(768, "google/siglip2-base-patch16-224"),
    "ViT-B-16-SigLIP__webli": ImmichModel(768, "google/siglip-base-patch16-224"),
    "ViT-B-16-plus-240__laion400m_e31": ImmichModel(640),
    "ViT-B-16-plus-240__laion400m_e32": ImmichModel(640),
    "ViT-B-16__laion400m_e31": ImmichModel(512),
    "ViT-B-16__laion400m_e32": ImmichModel(512),
    "ViT-B-16__openai": ImmichModel(512, "openai/clip-vit-base-patch16"),
    "ViT-B-32-SigLIP2-256__webli": ImmichModel(768, "google/siglip2-base-patch32-256"),
    "ViT-B-32__laion2b-s34b-b79k": ImmichModel(512, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
    "ViT-B-32__laion2b_e16": ImmichModel(512),
    "ViT-B-32__laion400m_e31": ImmichModel(512),
    "ViT-B-32__laion400m_e32": ImmichModel(512),
    "ViT-B-32__openai": ImmichModel(512, "openai/clip-vit-base-patch32"),
    "ViT-H-14-378-quickgelu__dfn5b": ImmichModel(1024, "apple/DFN5B-CLIP-ViT-H-14-378"),
    "ViT-H-14-quickgelu__dfn5b": ImmichModel(1024),
    "ViT-H-14__laion2b-s32b-b79k": ImmichModel(1024, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
    "ViT-L-14-336__openai": ImmichModel(768, "openai/clip-vit-large-patch14-336"),
    "ViT-L-14-quickgelu__dfn2b": ImmichModel(768),
    "ViT-L-14__laion2b-s32b-b82k": ImmichModel(768, "laion/CLIP-ViT-L-14-laion2B-s32B-b82K"),
    "ViT-L-14__laion400m_e31": ImmichModel(768),
    "ViT-L-14__laion400m_e32": ImmichModel(768),
    "ViT-L-14__openai": ImmichModel(768, "openai/clip-vit-large-patch14"),
    "ViT-L-16-SigLIP-256__webli": ImmichModel(1024, "google/siglip-large-patch16-256"),
    "ViT-L-16-SigLIP-384__webli": ImmichModel(1024, "google/siglip-large-patch16-384"),
    "ViT-L-16-SigLIP2-256__webli": ImmichModel(1024, "google/siglip2-large-patch16-256"),
    "ViT-L-16-SigLIP2-384__webli": ImmichModel(1024, "google/siglip2-large-patch16-384"),
    "ViT-L-16-SigLIP2-512__webli": ImmichModel(1024, "google/siglip2-large-patch16-512"),
    "ViT-SO400M-14-SigLIP-384__webli": ImmichModel(1152, "google/siglip-so400m-patch14-384"),
    # On the hub it takes pictures of 384 pixels, not 378.
    "ViT-SO400M-14-SigLIP2-378__webli": ImmichModel(1152),
    "ViT-SO400M-14-SigLIP2__webli": ImmichModel(1152, "google/siglip2-so400m-patch14-224"),
    "ViT-SO400M-16-SigLIP2-256__webli": ImmichModel(1152, "google/siglip2-so400m-patch16-256"),
    "ViT-SO400M-16-SigLIP2-384__webli": ImmichModel(1152, "google/siglip2-so400m-patch16-384"),
    "ViT-SO400M-16-SigLIP2-512__webli": ImmichModel(1152, "google/siglip2-so400m-patch16-512"),
    "ViT-g-14__laion2b-s12b-b42k": ImmichModel(1024, "laion/CLIP-ViT-g-14-laion2B-s12B-b42K"),
    "ViT-gopt-16-SigLIP2-256__webli": ImmichModel(1536, "google/siglip2-giant-opt-patch16-256"),
    "ViT-gopt-16-SigLIP2-384__webli": ImmichModel(1536, "google/siglip2-giant-opt-patch16-384"),
    "XLM-Roberta-Base-ViT-B-32__laion5b_s13b_b90k": ImmichModel(512),
    "XLM-Roberta-Large-ViT-H-14__frozen_laion5b_s13b_b90k": ImmichModel(1024),
    "XLM-Roberta-Large-Vit-B-16Plus": ImmichModel(640),
    "XLM-Roberta-Large-Vit-B-32": ImmichModel(512),
    "XLM-Roberta-Large-Vit-L-14": ImmichModel(768),
    "nllb-clip-base-siglip__mrl": ImmichModel(768),
    "nllb-clip-base-siglip__v1": ImmichModel(768),
    "nllb-clip-large-siglip__mrl": ImmichModel(1152),
    "nllb-clip-large-siglip__v1": ImmichModel(1152),
}
