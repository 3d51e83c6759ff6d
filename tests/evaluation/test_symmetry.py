from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.evaluation.symmetry import normalised_brain, refined_plane, symmetry_planes
from gsvr.model.geometry import pose_about
from gsvr.model.volume import Volume
from gsvr.simulation.phantom import brain_phantom


def test_plane_of_a_turned_brain_is_found():
    phantom = brain_phantom(spacing=2.4)
    pose = pose_about(np.array([0.7, -1.1, 0.4]), np.array([5.0, -3.0, 8.0]), np.zeros(3))
    brain = normalised_brain(replace(phantom, affine=pose @ phantom.affine))
    planes = symmetry_planes(brain)
    best = refined_plane(brain, planes[0])
    assert np.degrees(np.arccos(abs(best.normal @ pose[:3, 0]))) < 1.0
    assert abs(best.offset) < 0.03
    assert best.likeness > planes[-1].likeness + 0.1  # the others are other planes


def test_units_are_those_of_the_brain_whatever_its_brightness():
    phantom = brain_phantom(spacing=2.4)
    brain = normalised_brain(phantom)
    x = np.linspace(0.8, 1.25, phantom.data.shape[0], dtype=np.float32)[:, None, None]
    uneven = normalised_brain(Volume(7 * x * phantom.data, phantom.affine, phantom.mask))
    half = normalised_brain(Volume(phantom.data, phantom.affine @ np.diag([0.5, 0.5, 0.5, 1]), phantom.mask))
    assert half.radius == pytest.approx(brain.radius / 2)
    places = brain.places(2_000)
    values, occupancy = brain.at(places)
    assert np.allclose(half.at(places)[0], values, atol=0.02)
    assert np.corrcoef(uneven.at(places)[0], values)[0, 1] > 0.9
    assert occupancy.min() > 0
    assert np.array_equal(brain.at(np.array([[5.0, 0, 0]]))[1], [0.0])


def test_what_is_no_brain_is_refused():
    with pytest.raises(ValueError, match="no brain"):
        normalised_brain(Volume(np.zeros((4, 5, 6), np.float32), np.eye(4)))
    with pytest.raises(ValueError, match="no contrast"):
        normalised_brain(Volume(np.ones((4, 5, 6), np.float32), np.eye(4)))
