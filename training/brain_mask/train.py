"""Trains the network on scenes drawn on the fly; can be stopped and resumed at any time.

``python -m training.brain_mask.train --labels ATLASES --folder RUN`` writes ``RUN/checkpoint.pt`` now and then and
goes on from there when called again. One thread: scenes are drawn and learnt from in turn.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from training.brain_mask.atlases import read_atlases
from training.brain_mask.export import load_exported
from training.brain_mask.network import BrainNetwork
from training.brain_mask.scene import Scene, SceneOptions, draw_scene


@dataclass(frozen=True)
class TrainingOptions:
    """How long and how fast the network learns."""

    steps: int = 8_400
    batch: int = 16
    kept_scenes: int = 160  # batches are drawn from the latest scenes
    cut: float = 0.7  # of the batches: smaller pictures, mostly around the brain, which cost half as much
    cut_size: int = 96
    drawn_again: float = 0.5  # of the slices without a brain: they teach less
    rate: float = 2e-3
    warm_up: int = 200  # steps
    cool_down: float = 0.25  # the last part of the steps, in which the rate falls to nothing
    averaged_over: int = 600  # steps: how far back the averaged weights look
    decay: float = 1e-3
    seed: int = 13
    saved_every: int = 100  # steps


def rate_at(step: int, options: TrainingOptions) -> float:
    """Learning rate: a rise, a constant, a fall (so that the end can be moved while training runs)."""
    fall = options.cool_down * options.steps
    left = (options.steps - step) / max(fall, 1)
    return options.rate * min((step + 1) / options.warm_up, 1.0, max(left, 0.01))


def _neighbours(scene: Scene, k: int, rng: np.random.Generator) -> np.ndarray:
    """Slice ``k`` with those beside it (3, rows, columns); at an end, and now and then elsewhere, it stands for one."""
    last = len(scene.images) - 1
    below, above = max(k - 1, 0), min(k + 1, last)
    if rng.random() < 0.5:
        below, above = above, below
    if rng.random() < 0.05:
        below = k
    return scene.images[[below, k, above]]


def _draw_slice(scenes: list[Scene], rng: np.random.Generator) -> tuple[Scene, int]:
    scene = scenes[rng.integers(len(scenes))]
    return scene, int(rng.integers(len(scene.images)))


def _draw_part(mask: np.ndarray, size: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a picture of ``size`` pixels, with the brain, where there is one, anywhere in it."""
    part = []
    for axis, n in enumerate(mask.shape):
        low = int(rng.integers(n - size + 1))
        used = np.flatnonzero(mask.any(axis=1 - axis))
        if len(used) and size < n:
            low = int(np.clip(rng.choice(used) - rng.integers(size // 4, 3 * size // 4), 0, n - size))
        part.append(slice(low, low + size))
    return part[0], part[1]


def draw_batch(
    scenes: list[Scene], options: TrainingOptions, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices of random scenes, turned and mirrored at random, and their masks."""
    full = scenes[0].images.shape[-1]
    size = min(options.cut_size, full) if rng.random() < options.cut else full
    images = np.empty((options.batch, 3, size, size), np.float32)
    masks = np.empty((options.batch, 1, size, size), np.float32)
    for b in range(options.batch):
        scene, k = _draw_slice(scenes, rng)
        if not scene.mask[k].any() and rng.random() < options.drawn_again:
            scene, k = _draw_slice(scenes, rng)
        image, mask = _neighbours(scene, k, rng).astype(np.float32), scene.mask[None, k].astype(np.float32)
        part = _draw_part(mask[0], size, rng)
        image, mask = image[:, *part], mask[:, *part]
        turns = int(rng.integers(4))
        image, mask = np.rot90(image, turns, (1, 2)), np.rot90(mask, turns, (1, 2))
        if rng.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        images[b], masks[b] = image * rng.uniform(0.85, 1.18), mask
    return torch.from_numpy(images).contiguous(memory_format=torch.channels_last), torch.from_numpy(masks)


def loss_of(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, and one minus the Dice overlap over the whole batch."""
    probability = torch.sigmoid(logits)
    overlap = (2 * (probability * masks).sum() + 1) / (probability.sum() + masks.sum() + 1)
    return functional.binary_cross_entropy_with_logits(logits, masks) * 2 + 1 - overlap


@torch.no_grad()
def _average(averaged: BrainNetwork, network: BrainNetwork, kept: float) -> None:
    for mean, value in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - kept)
        else:
            mean.copy_(value)


def train(
    labels: Path, folder: Path, options: TrainingOptions, scene_options: SceneOptions, start: Path | None = None
) -> Path:
    """Trains up to ``options.steps`` and returns the path of the checkpoint.

    ``start``: exported weights to begin with, where there is no checkpoint yet.
    """
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "checkpoint.pt"
    torch.manual_seed(options.seed)
    network = BrainNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=options.decay)
    first = 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        network.load_state_dict(saved["network"])
        averaged.load_state_dict(saved["averaged"])
        optimiser.load_state_dict(saved["optimiser"])
        first = saved["step"]
    atlases = read_atlases(labels)
    if start is not None and not path.exists():
        rng = np.random.default_rng([options.seed, 3])
        images, _ = draw_batch([draw_scene(rng, atlases, scene_options) for _ in range(20)], options, rng)
        load_exported(network, start, images)
        averaged.load_state_dict(network.state_dict())

    ahead = 20  # scenes to begin with

    def scene_at(step: int) -> Scene:
        # a generator a step: what is drawn does not depend on where training was interrupted
        scene = draw_scene(np.random.default_rng([options.seed, 1, step]), atlases, scene_options)
        return Scene(scene.images.astype(np.float16), scene.mask.astype(np.float16))

    # the scenes that were kept when training stopped: it goes on exactly as if it had not
    scenes = [scene_at(step) for step in range(max(first + ahead - options.kept_scenes, 0), first + ahead)]
    total, overlaps, since = 0.0, 0.0, time.monotonic()
    for step in range(first, options.steps):
        scenes = [*scenes[-options.kept_scenes + 1 :], scene_at(step + ahead)]
        images, masks = draw_batch(scenes, options, np.random.default_rng([options.seed, 2, step]))
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, options)
        network.train()
        logits = network(images)  # float32: bfloat16 takes ten times as long on processors that have to emulate it
        loss = loss_of(logits, masks)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        _average(averaged, network, min(1 - 1 / options.averaged_over, (step + 1) / (step + 10)))
        with torch.no_grad():
            found = logits > 0
            overlaps += float((2 * (found * masks).sum() + 1) / (found.sum() + masks.sum() + 1))
        total += float(loss.detach())
        if (step + 1) % 50 == 0:
            seconds = (time.monotonic() - since) / 50
            print(f"step {step + 1} loss {total / 50:.4f} Dice {overlaps / 50:.4f} {seconds:.3f} s a step", flush=True)
            total, overlaps, since = 0.0, 0.0, time.monotonic()
        if (step + 1) % options.saved_every == 0 or step + 1 == options.steps:
            state = {
                "network": network.state_dict(),
                "averaged": averaged.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step + 1,
            }
            torch.save(state, path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)
    return path


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="folder of atlas-fidon-cc0")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=TrainingOptions.steps)
    parser.add_argument("--seed", type=int, default=TrainingOptions.seed)
    parser.add_argument("--rate", type=float, default=TrainingOptions.rate)
    parser.add_argument("--start", type=Path, help="exported weights (ONNX) to begin with")
    given = parser.parse_args()
    options = TrainingOptions(steps=given.steps, seed=given.seed, rate=given.rate)
    train(given.labels, given.folder, options, SceneOptions(), given.start)


if __name__ == "__main__":
    main()
