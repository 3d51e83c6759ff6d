from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gsvr.evaluation.anatomical_axes import anatomical_axes, average_brains, axes_of_template
from gsvr.io.nifti import read_volume
from gsvr.model.geometry import pose_about, vector_from_rotation
from gsvr.model.volume import Volume
from gsvr.simulation.phantom import brain_phantom


def turned(volume: Volume, pose: np.ndarray) -> Volume:
    return replace(volume, affine=pose @ volume.affine)


def degrees(pose: np.ndarray) -> float:
    return float(np.degrees(np.linalg.norm(vector_from_rotation(pose[:3, :3]))))


# upside down, and back to front
@pytest.mark.parametrize("vector", [(2.9, 0.3, -0.4), (0.2, 0.4, 2.7)])
def test_axes_of_a_turned_phantom(vector: tuple[float, float, float]):
    phantom = brain_phantom(spacing=2.0)
    pose = pose_about(np.array(vector), np.array([10.0, -20.0, 5.0]), np.zeros(3))
    found = anatomical_axes(turned(phantom, pose))
    assert found.resolved
    assert np.allclose(found.pose[:3, :3] @ found.pose[:3, :3].T, np.eye(3))
    assert np.linalg.det(found.pose[:3, :3]) == pytest.approx(1)  # never a mirror
    left = found.pose @ pose
    assert np.degrees(np.arccos(left[0, 0])) < 1.0
    assert degrees(left) < 12.0  # up and front are those of other brains
    assert phantom.mask is not None
    middle = left @ [*phantom.centre(phantom.mask), 1]
    assert abs(middle[0]) < 0.5
    assert np.linalg.norm(middle[:3]) < 5


def test_a_template_decides():
    phantom = brain_phantom(spacing=2.0)
    odd = pose_about(np.array([0.4, -1.0, 0.9]), np.array([3.0, 4.0, -5.0]), np.zeros(3))
    small = phantom.affine @ np.diag([0.8, 0.8, 0.8, 1])
    template = Volume(phantom.data, odd @ small, None)
    pose = pose_about(np.array([1.2, -1.9, 0.8]), np.array([10.0, -20.0, 5.0]), np.zeros(3))
    found = axes_of_template(turned(phantom, pose), template)
    assert found.resolved
    assert degrees(found.pose @ pose @ np.linalg.inv(odd)) < 1.0
    assert phantom.mask is not None
    centre = [*phantom.centre(phantom.mask), 1]
    assert np.linalg.norm((found.pose @ pose @ centre - odd @ small @ np.linalg.inv(phantom.affine) @ centre)[:3]) < 1.0


def test_what_has_no_front_is_said_to_have_none():
    x = np.stack(np.meshgrid(*[np.linspace(-40, 40, 27)] * 3, indexing="ij"), axis=-1)
    egg = np.sum((x / [30, 36, 28]) ** 2, axis=-1) < 1
    noise = np.random.default_rng(0).normal(size=egg.shape)
    volume = Volume(np.where(egg, 100 + 10 * noise, 0).astype(np.float32), np.diag([3.0, 3, 3, 1]), egg)
    assert not anatomical_axes(volume).resolved


def test_average_brains_are_symmetric_and_upright():
    for brain in average_brains():
        assert np.array_equal(brain.values, brain.values[::-1])
        n = brain.values.shape[0] // 2
        assert brain.occupancy[n, n, n] > 0.9
        # the brainstem leaves the brain below and behind its middle
        below = brain.occupancy[n, :, : n // 2]
        assert below[:n].sum() > 1.5 * below[n:].sum()


def test_another_brain_of_an_atlas(shared_data: Path):
    folder = shared_data / "atlas-crl"
    brain = read_volume(folder / "STA27.nii.gz", folder / "STA27_mask_dil.nii.gz")
    assert brain.mask is not None
    affine = brain.affine @ np.diag([2.0, 2, 2, 1])
    coarse = Volume(brain.data[::2, ::2, ::2], affine, brain.mask[::2, ::2, ::2])
    pose = pose_about(np.array([-1.5, 0.9, 1.1]), np.zeros(3), np.zeros(3))
    found = anatomical_axes(turned(coarse, pose))
    assert found.resolved
    assert degrees(found.pose @ pose) < 15
