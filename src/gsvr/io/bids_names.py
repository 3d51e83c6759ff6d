"""Names of files in a BIDS dataset: ``sub-01_ses-02_acq-haste_run-1_T2w.nii.gz``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"(?P<entities>(?:[a-z]+-[A-Za-z0-9+]+_)+)(?P<suffix>[A-Za-z0-9]+)(?P<extension>\.[A-Za-z0-9.]+)")
# subject, session, anat: farther up a dataset has no names that tell of one image
_HIGHEST = 4


@dataclass(frozen=True)
class BidsName:
    """A name in its parts.

    Attributes
    ----------
    entities
        Such as ``("sub", "01")``, in the order of the name.
    suffix
        What the file shows: ``T2w``, ``mask``.
    extension
        With its dot: ``.nii.gz``.
    """

    entities: tuple[tuple[str, str], ...]
    suffix: str
    extension: str

    def get(self, key: str) -> str | None:
        """Value of an entity, or None."""
        return dict(self.entities).get(key)

    def without(self, *keys: str) -> frozenset[tuple[str, str]]:
        """All entities but some, in no order."""
        return frozenset(entity for entity in self.entities if entity[0] not in keys)

    @property
    def stem(self) -> str:
        """The entities as they begin a name, without the suffix."""
        return "_".join(f"{key}-{value}" for key, value in self.entities)


def parse_name(name: str) -> BidsName | None:
    """The parts of a file's name, or None if it is no name of BIDS or has an entity twice."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    parted = [entity.partition("-") for entity in match["entities"].rstrip("_").split("_")]
    pairs = tuple((key, value) for key, _, value in parted)
    if len(dict(pairs)) < len(pairs):
        return None
    return BidsName(pairs, match["suffix"], match["extension"])


def inherited_sidecars(image: str | Path) -> list[Path]:
    """JSON files in the folders above an image that tell of it, the farthest first (BIDS: the inheritance principle).

    Such a file has the suffix of the image and no entity that the image lacks; of several in one folder, those with
    more entities come later. Nothing is looked for above the file ``dataset_description.json``, or where there is none.
    """
    image = Path(image)
    name = parse_name(image.name)
    if name is None or name.get("sub") is None:
        return []
    found: list[Path] = []
    for folder in _folders_above(image):
        matching = [
            (len(parts.entities), other)
            for other in sorted(os.listdir(folder))
            if other.endswith(".json")
            and (parts := parse_name(other) or _bare(other)) is not None
            and parts.suffix == name.suffix
            and set(parts.entities) < set(name.entities)
        ]
        found += [folder / other for _, other in sorted(matching)]
    return found


def _folders_above(image: Path) -> Iterator[Path]:
    """From the root of the dataset down to the folder of the image."""
    folder = image.absolute().parent
    folders = [folder, *folder.parents][:_HIGHEST]
    roots = [number for number, other in enumerate(folders) if (other / "dataset_description.json").is_file()]
    return reversed(folders[: roots[0] + 1]) if roots else iter(())


def _bare(name: str) -> BidsName | None:
    """A name without entities, such as ``T2w.json``."""
    suffix, dot, extension = name.partition(".")
    return BidsName((), suffix, dot + extension) if suffix.isalnum() else None
