"""Examinations of the moving brain as DICOM exports."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gsvr.io.dicom.acquired import ExaminationLabels, SeriesLabels, Vendor, classic_series, enhanced_instance
from gsvr.model.slices import Stack
from tests.moving_brain import moving_brain

# What must not turn up anywhere.
SECRETS = ("GRACE", "HOPPER", "PID-4711", "19061209", "Dr. Strange", "corridor")


def labels(**given: str) -> ExaminationLabels:
    secret = {"patient_name": "HOPPER^GRACE", "patient_id": "PID-4711", "birth_date": "19061209"}
    return ExaminationLabels.new(**(secret | given))


def oblique_stacks() -> list[Stack]:
    """Axial, coronal, sagittal, and a tilted one."""
    return moving_brain(n_stacks=4).stacks


def save(instances: Iterable[Any], folder: Path, first: int = 0) -> list[Path]:
    """Write instances under names that say nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, instance in enumerate(instances, first):
        instance.ReferringPhysicianName = "Dr. Strange"
        instance.InstitutionName = "corridor"
        path = folder / f"I{number:05d}"
        instance.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def export(
    folder: Path,
    stacks: Iterable[Stack],
    vendor: Vendor = "siemens",
    enhanced: bool = False,
    examination: ExaminationLabels | None = None,
    **elements: object,
) -> list[Path]:
    """Write stacks as series 3, 4, ... of one examination, all files in one folder."""
    examination = examination or labels()
    paths: list[Path] = []
    for number, stack in enumerate(stacks, 3):
        description = f"T2 HASTE {examination.patient_name}"
        series = SeriesLabels(number, description, vendor, begin=number * 60.0, elements=dict(elements))
        if enhanced:
            instances = [enhanced_instance(stack, examination, series)]
        else:
            instances = classic_series(stack, examination, series)
        paths += save(instances, folder, len(paths))
    return paths


def as_stored(stack: Stack) -> np.ndarray:
    """Intensities after the rounding that storing them needs."""
    scale = float(stack.data.max()) / 4095
    return np.rint(stack.data / scale) * scale
