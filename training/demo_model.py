"""Trains the demo model: `python -m training.demo_model FOLDER`.

Contrastive learning (SimCLR, arXiv:2002.05709) on two views of each drawing. What must find its partner among all
others is the mean of all tokens, the pooler's output, and, so that patches mean something as well, single patches that
show the same place of a drawing (as in DenseCL, arXiv:2011.09157). Of a glyph, the two views are of the glyph written
twice.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers import ViTConfig, ViTModel

from iei.checkpoints.demo import CONFIG, PREPROCESSOR
from training.drawings import SHARES, draw, kind, sign
from training.views import Views, joined, views

SEED = 20261121
DRAWINGS = 3000
STEPS = 3000
BATCH = 64
KEEP = 23
"""Of 196 patches, those that the model sees of a view."""

_ALL = tuple(SHARES)
CANDIDATES = (_ALL, ("glyph",), _ALL, ("texture", "crowd"), _ALL, ("scene",))
"""The kinds of drawings in a step's batch, by turns: one kind alone can't be told apart by what is particular to it."""

TEMPERATURE = 0.15
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.05
WARM_UP, COOL_DOWN = 60, 200
"""Steps in which the learning rate rises, and in which it falls; it is constant between these."""


class Learner(nn.Module):
    """The model, and the heads that only the training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = ViTModel(ViTConfig(**CONFIG, attn_implementation="eager"))  # for 32 tokens faster than sdpa
        width = self.vit.config.hidden_size
        self.heads = nn.ModuleDict({name: _head(width) for name in ("mean", "pooler", "patches")})
        self.apply(_spread)
        nn.init.normal_(self.vit.embeddings.position_embeddings, std=0.1)

    def forward(self, seen: Views) -> dict[str, Tensor]:
        """Unit vectors: of the mean and of the pooler [B, D], of patches [B, K, D]."""
        with torch.autocast("cpu", torch.bfloat16):
            tokens = self._tokens(seen)
            found = {"mean": tokens.mean(1), "pooler": self.vit.pooler(tokens), "patches": tokens[:, 1:]}
            heads = {name: self.heads[name](value) for name, value in found.items()}
        return {name: functional.normalize(value.float(), dim=-1) for name, value in heads.items()}

    def _tokens(self, seen: Views) -> Tensor:
        """What ViTModel computes, for some of its patches: [B, 1 + K, D]."""
        table = self.vit.embeddings.position_embeddings[0]
        patches = functional.linear(
            seen.pixels.flatten(2),
            self.vit.embeddings.patch_embeddings.projection.weight.flatten(1),
            self.vit.embeddings.patch_embeddings.projection.bias,
        )
        first = (self.vit.embeddings.cls_token + table[:1]).expand(len(patches), -1, -1)
        tokens = torch.cat([first, patches + table[1:][seen.places]], 1)
        for layer in self.vit.layers:
            tokens = layer(tokens)
        return self.vit.layernorm(tokens)


def loss(left: dict[str, Tensor], right: dict[str, Tensor], origins: tuple[Tensor, Tensor]) -> Tensor:
    """Sum of the contrasts between two views of each drawing; of patches, if any show the same places."""
    total = _contrast(left["mean"], right["mean"]) + _contrast(left["pooler"], right["pooler"])
    ours, theirs = _same_places(*origins)
    if len(ours):
        patches = left["patches"].flatten(0, 1)[ours], right["patches"].flatten(0, 1)[theirs]
        total = total + 0.5 * _contrast(*patches)
    return total


def _contrast(left: Tensor, right: Tensor) -> Tensor:
    """NT-Xent: of all other vectors, the partner's must be the nearest."""
    both = torch.cat([left, right])
    logits = (both @ both.T / TEMPERATURE).fill_diagonal_(-math.inf)
    return functional.cross_entropy(logits, torch.arange(len(both)).roll(len(left)))


def _same_places(left: Tensor, right: Tensor, most: int = 192) -> tuple[Tensor, Tensor]:
    """Indices of patches of two views that show the same place, to within half a patch: the `most` nearest pairs."""
    many, keep = left.shape[:2]
    distance, nearest = torch.cdist(left, right).min(2)
    order = distance.flatten().argsort()[:most]
    order = order[distance.flatten()[order] < 1 / 14]
    return order, (nearest + torch.arange(many)[:, None] * keep).flatten()[order]


def _spread(module: nn.Module) -> None:
    """Keeps the variance from layer to layer: already random weights tell pictures apart, and learning is faster."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        nn.init.zeros_(module.bias)


def _head(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 512), nn.GELU(), nn.Linear(512, 128))


class Drawings(NamedTuple):
    """All that is learnt from."""

    pictures: Tensor
    """float32[N, 3, SIDE, SIDE], 0…1."""
    again: Tensor
    """The same in another light, and glyphs written another time."""
    kinds: NDArray[np.str_]
    """str[N]."""
    signs: NDArray[np.object_]
    """object[N]: what a glyph is."""


def drawings(many: int, cache: Path) -> Drawings:
    """Reads drawings from `cache`, or draws them and writes them there."""
    if not cache.is_file():
        with get_context("fork").Pool(2) as pool:
            np.save(cache, np.stack(pool.map(_drawing, range(many), chunksize=50)))
    # Floats, once: this takes longer than a view.
    pictures, again = torch.from_numpy(np.load(cache)).float().div_(255).unbind(1)
    kinds, signs = zip(*((kind(dice), sign(dice)) for dice in map(_dice, range(many))), strict=True)
    return Drawings(pictures, again, np.array(kinds), np.array(signs, object))


def _drawing(number: int) -> NDArray[np.uint8]:
    """uint8[2, 3, SIDE, SIDE]: two of the same."""
    return np.stack([draw(_dice(number), _dice(number, hand)).transpose(2, 0, 1) for hand in (1, 2)])


def _dice(*seed: int) -> np.random.Generator:
    return np.random.default_rng([SEED, *seed])


class Steps(Dataset[tuple[Views, Views]]):
    """Two views of each of BATCH drawings, for every step of the training: the same for the same step."""

    def __init__(self, drawn: Drawings, steps: range) -> None:
        self.steps = steps
        self.drawn = drawn
        self.candidates = [np.flatnonzero(np.isin(drawn.kinds, allowed)) for allowed in CANDIDATES]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, place: int) -> tuple[Views, Views]:
        step = self.steps[place]
        random = torch.Generator().manual_seed(SEED + step)
        candidates = self.candidates[step % len(CANDIDATES)]
        order = candidates[torch.randperm(len(candidates), generator=random)]
        is_written = CANDIDATES[step % len(CANDIDATES)] == ("glyph",)
        if is_written:  # one of each sign: those that are alike must not be told apart
            _, firsts = np.unique(self.drawn.signs[order].astype(str), return_index=True)
            order = order[np.sort(firsts)]
        left, right = (
            _views(hand[order[:BATCH]], random, is_written) for hand in (self.drawn.pictures, self.drawn.again)
        )
        # A glyph that is written again has none of its places where it was.
        return left, right._replace(origins=right.origins + 10) if is_written else right


def _views(pictures: Tensor, random: torch.Generator, is_written: bool) -> Views:
    # In small pieces, which stay in the processor's cache: twice as fast.
    return joined([views(piece, KEEP, random, is_written=is_written) for piece in pictures.split(16)])


def train(folder: Path, drawn: Drawings, steps: int) -> None:
    """Trains, and writes the checkpoint into `folder`. Goes on where an earlier call stopped (state.pt)."""
    torch.manual_seed(SEED)
    learner = Learner()
    groups = [
        {"params": [weight for weight in learner.parameters() if weight.ndim == 2], "weight_decay": WEIGHT_DECAY},
        {"params": [weight for weight in learner.parameters() if weight.ndim != 2], "weight_decay": 0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    state, done = folder / "state.pt", 0
    if state.is_file():
        learner_state, optimizer_state, done = torch.load(state)
        learner.load_state_dict(learner_state)
        optimizer.load_state_dict(optimizer_state)
    began = time.monotonic()
    # Views are made beside the training. Two processes of one thread each do more than one of two.
    loader = DataLoader(Steps(drawn, range(done, steps)), batch_size=None, num_workers=1, prefetch_factor=4)
    for step, (left, right) in enumerate(loader, done):
        rate = LEARNING_RATE * min((step + 1) / WARM_UP, (steps - step) / COOL_DOWN, 1)
        for group in optimizer.param_groups:
            group["lr"] = rate
        total = loss(learner(left), learner(right), (left.origins, right.origins))
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1)
        optimizer.step()
        if step % 10 == 9:
            print(f"{step + 1:5} {time.monotonic() - began:6.0f} s  loss {total.item():.3f}", flush=True)
        if step % 50 == 49 and step + 1 <= steps - COOL_DOWN:
            torch.save((learner.state_dict(), optimizer.state_dict(), step + 1), state)
            _write(learner.vit, folder)
    _write(learner.vit, folder)


def _write(vit: ViTModel, folder: Path) -> None:
    vit.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")


def main() -> None:
    """Trains the demo model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where weights, and what it needs to go on, are written")
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    train(args.folder, drawings(DRAWINGS, args.folder / "drawings.npy"), args.steps)


if __name__ == "__main__":
    main()
