"""How masks are found, and how wide they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MaskOptions:
    """Where masks come from, and margins in mm.

    Attributes
    ----------
    automatic
        Whether the brain is looked for in stacks without a mask: ``"auto"``, where they show more than a brain;
        ``"always"``; or ``"never"``.
    margin
        Pixels this far outside the mask are used as well, since masks tend to crop the brain.
    margin_of_found
        The same where nobody drew a mask: an outline that was found is less certain.
    reach
        How far from its mask a slice is kept at hand for the mask to grow into once motion is known.
    borrowed
        Extra margin where a stack has no mask of its own and borrows another's, before motion is known.
    spacing
        Resolution of the vote.
    """

    automatic: Literal["auto", "always", "never"] = "auto"
    margin: float = 2.5
    margin_of_found: float = 5.0
    reach: float = 10.0
    borrowed: float = 6.0
    spacing: float = 2.0

    @property
    def shown(self) -> float:
        """How far outside the mask the volume is shown: not quite as far as there are pixels."""
        return max(self.margin - 0.5, 0.0)
