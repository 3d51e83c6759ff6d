"""AdamW (Loshchilov & Hutter, ICLR 2019) for a few named arrays, each with its own learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# The usual constants, which the paper does not print.
MOMENTUM, MEMORY, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class LearningRate:
    """How far one array moves.

    Attributes
    ----------
    rate
        Learning rate of the first epoch: about how far an entry moves in a step, in its own unit.
    decay
        Decoupled weight decay: each step shrinks the array by `rate` x `decay`.
    """

    rate: float
    decay: float = 0.0


@dataclass(frozen=True)
class Halving:
    """All rates are halved after `every` steps, again and again."""

    every: int

    def rate(self, first: float, step: int) -> float:
        """What a rate has become in a step (from 0)."""
        return first * 0.5 ** (step // self.every)


@dataclass(frozen=True)
class CosineAnnealing:
    """All rates fall along half a cosine to one and the same `last` (Loshchilov & Hutter, ICLR 2017).

    Attributes
    ----------
    steps
        Until then; rates stay as they are afterwards.
    last
        The rate of every array in the end, in its own unit.
    """

    steps: int
    last: float

    def rate(self, first: float, step: int) -> float:
        """What a rate has become in a step (from 0)."""
        last = min(self.last, first)  # what does not move does not begin to
        return last + (first - last) * (1 + np.cos(np.pi * min(step / self.steps, 1.0))) / 2


Schedule = Halving | CosineAnnealing


class AdamW:
    """First and second moments of every array's gradient.

    Parameters
    ----------
    rates
        Learning rate of each array, by name.
    schedule
        How all of them fall.
    """

    def __init__(self, rates: Mapping[str, LearningRate], schedule: Schedule) -> None:
        self._rates, self._schedule = rates, schedule
        self._steps = 0
        self._first: dict[str, np.ndarray] = {}
        self._second: dict[str, np.ndarray] = {}

    def step(self, values: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Values after one step; the arrays given stay as they are.

        Raises
        ------
        KeyError
            If an array has no learning rate or no gradient.
        """
        self._steps += 1
        return {name: self._moved(name, value, gradients[name]) for name, value in values.items()}

    def _moved(self, name: str, value: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        if name not in self._first:
            self._first[name], self._second[name] = np.zeros_like(gradient), np.zeros_like(gradient)
        first, second = self._first[name], self._second[name]
        first += (1 - MOMENTUM) * (gradient - first)
        second += (1 - MEMORY) * (gradient * gradient - second)
        rate = self._schedule.rate(self._rates[name].rate, self._steps - 1)
        spread = np.sqrt(second / (1 - MEMORY**self._steps)) + EPSILON
        step = rate / (1 - MOMENTUM**self._steps) * first / spread
        return (value * (1 - rate * self._rates[name].decay) - step).astype(value.dtype)
