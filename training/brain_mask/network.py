"""The network: a U-Net on three neighbouring slices, most of it at half the resolution."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

CHANNELS = 3  # the slice below, the slice itself, the slice above
FACTOR = 16  # rows and columns have to be multiples of this


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class BrainNetwork(nn.Module):
    """Three slices of 2 mm pixels to the logit of "brain" in the middle one.

    Images (batch, 3, rows, columns) become logits (batch, 1, rows, columns). Two by two pixels become channels first,
    so that all but the last convolutions run on a quarter of the pixels; the levels lie at 4, 8, 16 and 32 mm.
    """

    def __init__(self, widths: tuple[int, ...] = (24, 48, 72, 96)) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        inputs = 4 * CHANNELS
        for width in widths:
            self.down.append(_convolutions(inputs, width))
            inputs = width
        self.up = nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.up.append(_convolutions(inputs + width, width))
            inputs = width
        self.spread = nn.Conv2d(inputs, 16, 3, padding=1)
        self.head = nn.Sequential(nn.Conv2d(4 + CHANNELS, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the middle slice."""
        y = functional.pixel_unshuffle(images, 2)
        levels = []
        for level, convolutions in enumerate(self.down):
            y = convolutions(functional.max_pool2d(y, 2) if level else y)
            levels.append(y)
        for convolutions, skipped in zip(self.up, reversed(levels[:-1]), strict=True):
            y = convolutions(torch.cat([functional.interpolate(y, scale_factor=2.0, mode="nearest"), skipped], 1))
        return self.head(torch.cat([functional.pixel_shuffle(self.spread(y), 2), images], 1))
