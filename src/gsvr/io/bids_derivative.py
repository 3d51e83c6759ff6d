"""A BIDS derivative dataset: the files that describe it, and the sidecars of what is in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gsvr import __version__
from gsvr.io.atomic import atomic_path
from gsvr.io.bids import DESCRIPTION, BidsSession
from gsvr.io.record import write_record
from gsvr.io.sidecar import read_json_object

# The version of BIDS whose names are used.
_BIDS_VERSION = "1.9.0"
# What BIDS has no name for. The validator overlooks the slash after the name of a folder.
_IGNORED = ("*.html", "group.tsv", "logs", "figures", "xfm", "*_poses.json", "*_record.json", "*_field.safetensors")
_README = """\
# Volumes reconstructed by gsvr

One volume a session, reconstructed from all stacks of 2-D slices of that session by slice-to-volume reconstruction.
Not for clinical use.

| file | content |
|---|---|
| `sub-*/[ses-*/]anat/*_rec-gsvr_T2w.nii.gz` | the volume |
| `*_rec-gsvr_desc-brain_mask.nii.gz` | brain mask |
| `*_rec-gsvr_desc-uncertainty_T2w.nii.gz` | standard deviation of every voxel, if it was asked for |
| `*_rec-gsvr_poses.json` | pose of every slice, as 4 x 4 matrices |
| `*_rec-gsvr_field.safetensors` | the volume as Gaussians, for `gsvr render` |
| `*_rec-gsvr_record.json` | record of the run: versions, options, verdict |
| `sub-*/[ses-*/]xfm/*_from-gsvr_to-sliceNNN_mode-image_xfm.tfm` | ITK transform that resamples the volume onto the grid of an acquired slice; its inverse resamples the slice onto the volume |
| `sub-*/[ses-*/]xfm/*_from-gsvr_to-scanner_mode-image_xfm.tfm` | the same from the axes of the brain to those of the scanner, with `--orientation anatomical` |
| `sub-*/figures/*.png` | mid-slices |
| `sub-*.html` | report of a session; look here first |
| `group.html`, `group.tsv` | all sessions |
"""  # noqa: E501


def write_description(output: Path, source: Path) -> None:
    """Write what makes a folder a derivative dataset: description, README, and what the validator is to pass over.

    A README that is there already stays.

    Parameters
    ----------
    output
        Folder of the derivative dataset.
    source
        Folder of the dataset that it is made of.
    """
    raw = read_json_object(source / DESCRIPTION)
    origin: dict[str, Any] = {"URL": _relative(source, output)}
    if raw.get("DatasetDOI"):
        origin["DOI"] = raw["DatasetDOI"]
    description: dict[str, Any] = {
        "Name": f"{raw.get('Name') or 'unnamed dataset'}: volumes reconstructed by gsvr",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": "gsvr", "Version": __version__, "Description": "slice-to-volume reconstruction by 3-D Gaussians"}
        ],
        "SourceDatasets": [origin],
        "DatasetLinks": {"raw": _relative(source, output)},
        **{name: raw[name] for name in ("License", "HowToAcknowledge") if raw.get(name)},
    }
    write_record(output / DESCRIPTION, description)
    _write_text(output / ".bidsignore", "\n".join(_IGNORED) + "\n")
    if not any((output / name).exists() for name in ("README", "README.md", "README.txt", "README.rst")):
        _write_text(output / "README.md", _README)


def write_sidecars(
    output: Path, volume: Path, mask: Path, uncertainty: Path | None, source: Path, session: BidsSession
) -> None:
    """Write the sidecars of a volume, its mask and its uncertainty.

    Parameters
    ----------
    output
        Folder of the derivative dataset.
    source
        Folder of the dataset that holds the session.
    """
    runs = [run.path for run in session.runs]
    sources = _uris(runs, source)
    made = f"slice-to-volume reconstruction by gsvr {__version__} from {len(runs)} stacks"
    drawn = _uris([run.mask for run in session.runs if run.mask is not None], source)
    reference = f"bids::{_relative(volume, output)}"
    contents: dict[Path, dict[str, Any]] = {
        volume: {"Description": made, "Sources": sources, "SkullStripped": True},
        mask: {
            "Description": "consensus brain mask of all stacks",
            "Type": "Brain",
            "Sources": sources + drawn,
            "SpatialReference": reference,
        },
    }
    if uncertainty is not None:
        contents[uncertainty] = {
            "Description": f"standard deviation of every voxel; {made}",
            "Sources": sources,
            "SkullStripped": True,
            "SpatialReference": reference,
        }
    for image, content in contents.items():
        write_record(image.with_name(image.name.removesuffix(".nii.gz") + ".json"), content)


def _uris(paths: Sequence[Path], source: Path) -> list[str]:
    """BIDS URIs of the files that lie in the dataset."""
    relative = [_relative(path, source) for path in paths]
    return [f"bids:raw:{path}" for path in relative if not path.startswith("..")]


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
