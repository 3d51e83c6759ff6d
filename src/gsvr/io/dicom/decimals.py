"""Numbers as DICOM writes them."""

from __future__ import annotations

# Characters of a decimal string.
_LENGTH = 16


def decimal(value: float) -> str:
    """A decimal string, as exact as its length allows."""
    for digits in range(15, 5, -1):
        text = f"{float(value):.{digits}g}"
        if len(text) <= _LENGTH:
            return text
    raise ValueError(f"{value} does not fit a decimal string")
