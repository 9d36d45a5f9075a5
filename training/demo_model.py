"""Trains the demo model: `python -m training.demo_model FOLDER`.

Contrastive learning (SimCLR, arXiv:2002.05709) on two views of each drawing. What must find its partner among all
others is the mean of all tokens, the pooler's output, and, so that patches mean something as well, single patches that
show the same place of a drawing (as in DenseCL, arXiv:2011.09157).
"""

from __future__ import annotations

import argparse
import math
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers import ViTConfig, ViTModel

from iei.checkpoints.demo import CONFIG
from training.drawings import KINDS, draw, kind
from training.views import Views, joined, views

SEED = 20261121
DRAWINGS = 3000
STEPS = 1500
BATCH = 64
KEEP = 23
"""Of 196 patches, those that the model sees of a view."""

CANDIDATES = (tuple(KINDS), ("glyph",), tuple(KINDS), ("texture", "crowd"), tuple(KINDS), ("scene",))
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
    """Sum of the three contrasts between two views of each drawing."""
    patches = _same_places(*origins)
    return (
        _contrast(left["mean"], right["mean"])
        + _contrast(left["pooler"], right["pooler"])
        + 0.5 * _contrast(left["patches"].flatten(0, 1)[patches[0]], right["patches"].flatten(0, 1)[patches[1]])
    )


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


def drawings(many: int, cache: Path) -> Tensor:
    """uint8[many, 3, 224, 224]: read from `cache`, or drawn and written there."""
    if not cache.is_file():
        with get_context("fork").Pool(2) as pool:
            np.save(cache, np.stack(pool.map(_drawing, range(many), chunksize=50)))
    return torch.from_numpy(np.load(cache))


def _drawing(number: int) -> np.ndarray:
    return draw(_dice(number)).transpose(2, 0, 1)


def _dice(number: int) -> np.random.Generator:
    return np.random.default_rng([SEED, number])


class Steps(Dataset[tuple[Views, Views]]):
    """Two views of each of BATCH drawings, for every step of the training: the same for the same step."""

    def __init__(self, drawn: Tensor, steps: range) -> None:
        self.steps = steps
        self.drawn = drawn.float() / 255  # once: this takes longer than a view
        kinds = np.array([kind(_dice(number)) for number in range(len(drawn))])
        self.candidates = [torch.from_numpy(np.flatnonzero(np.isin(kinds, allowed))) for allowed in CANDIDATES]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, place: int) -> tuple[Views, Views]:
        step = self.steps[place]
        random = torch.Generator().manual_seed(SEED + step)
        candidates = self.candidates[step % len(self.candidates)]
        drawn = self.drawn[candidates[torch.randperm(len(candidates), generator=random)[:BATCH]]]
        # In small pieces, which stay in the processor's cache: twice as fast.
        left, right = ([views(piece, KEEP, random) for piece in drawn.split(16)] for _ in range(2))
        return joined(left), joined(right)


def train(folder: Path, drawn: Tensor, steps: int) -> None:
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
            learner.vit.save_pretrained(folder)
    learner.vit.save_pretrained(folder)


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
