"""How long the arrays of a kernel must be: the brackets behind their declarations in ``c/*_kernels.h``.

``[n 3]`` is n times 3 elements, ``[n + 1]`` one more than n. A name is that of a number among the arguments, of a
constant, or stands for one length throughout a declaration. ``..`` is any length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

# the comment behind a declaration, and behind the comma or bracket that ends it
_BRACKETS = re.compile(r"(\w+)\s*[,;)]+\s*/\*\s*(\[[^\]]+\])")
_FACTOR = re.compile(r"\w+|\.\.")


@dataclass(frozen=True)
class Length:
    """Number of elements: a product of names and numbers, and some more.

    Attributes
    ----------
    text
        As it stands in the header.
    factors
        Names and numbers.
    more
        What is added to their product.
    """

    text: str
    factors: tuple[str, ...]
    more: int

    def unknown(self, known: Mapping[str, int]) -> list[str]:
        """Names that have no value yet."""
        return [name for name in self.factors if not name.isdecimal() and name not in known]

    def of(self, known: Mapping[str, int]) -> int:
        """Number of elements, all names known."""
        return self.product(known) + self.more

    def product(self, known: Mapping[str, int]) -> int:
        """Product of the factors that are known."""
        return prod(int(name) if name.isdecimal() else known.get(name, 1) for name in self.factors)


def lengths_in(declarations: str) -> dict[str, Length]:
    """Lengths of the arrays that are declared, by their names, where the header states them."""
    found = {}
    for name, text in _BRACKETS.findall(declarations):
        product, _, more = text.strip("[]").partition("+")
        found[name] = Length(text, tuple(_FACTOR.findall(product)), int(more or 0))
    return found


def check_lengths(owner: str, lengths: Mapping[str, Length], values: Mapping[str, Any], known: dict[str, int]) -> None:
    """Refuse arrays that are shorter than they must be.

    Parameters
    ----------
    owner
        Function or structure, for the message.
    lengths
        Of `lengths_in`.
    values
        Arrays by name; others are passed over.
    known
        Numbers by name; those that arrays tell are added.

    Raises
    ------
    ValueError
        Naming the first array that does not fit.
    """
    arrays = [(name, values[name], length) for name, length in lengths.items() if isinstance(values[name], np.ndarray)]
    for name, array, length in arrays:
        unknown = length.unknown(known)
        if len(unknown) == 1 and unknown != [".."]:
            known[unknown[0]] = (array.size - length.more) // max(length.product(known), 1)
        elif len(unknown) > 1 and array.ndim == len(length.factors) and not length.more:
            known.update(
                (factor, n)
                for factor, n in zip(length.factors, array.shape, strict=True)
                if factor in unknown and factor != ".."
            )
        if not length.unknown(known) and array.size < length.of(known):
            numbers = ", ".join(f"{factor} = {known[factor]}" for factor in length.factors if factor in known)
            raise ValueError(f"{owner}: {name} has {array.size} elements, too few for {length.text} ({numbers})")
