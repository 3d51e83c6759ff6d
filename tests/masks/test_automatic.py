"""The brain is found where the stacks agree, drawn on each stack's own grid, and doubted where it should be."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gsvr.errors import InputError
from gsvr.masks.automatic import find_brains, shows_more_than_a_brain
from gsvr.masks.automatic.candidates import Candidate, find_candidates
from gsvr.masks.automatic.choice import choose, doubts
from gsvr.masks.automatic.network import neighbour_step, with_neighbours
from gsvr.masks.automatic.resampling import averaging_weights, interpolating_weights, resampled


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    grid = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    return np.sum([(g - c) ** 2 for g, c in zip(grid, centre, strict=True)], axis=0) < radius**2


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.Nifti1Image.from_filename(path)
    return np.asarray(image.dataobj, np.float32), np.asarray(image.affine)


def candidate(centre: tuple[float, ...], volume: float = 200.0, certainty: float = 0.95) -> Candidate:
    return Candidate(np.ones((1, 1, 1), bool), np.array(centre, float), volume, certainty)


@pytest.mark.parametrize("spacing", [0.7, 1.125, 2.0, 3.1])
def test_resampling_keeps_a_constant_and_a_slope(spacing):
    n = 60
    down, up = averaging_weights(n, spacing), interpolating_weights(n, spacing)
    np.testing.assert_allclose(down.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(up.sum(axis=1), 1, atol=1e-5)
    slope = (np.arange(n) - (n - 1) / 2) * spacing
    inner = slice(5, -5)
    # weights of a triangle that no pixel lies on symmetrically shift the mean by a small part of a pixel
    np.testing.assert_allclose((up @ (down @ slope))[inner], slope[inner], atol=0.15)


def test_each_axis_is_resampled_by_its_own_weights():
    values = np.random.default_rng(0).normal(size=(12, 9, 4)).astype(np.float32)
    across, down = averaging_weights(12, 1.3), interpolating_weights(17, 1.1)
    assert down.shape == (17, 10)
    down = down[:, :9]
    expected = np.einsum("ci,rj,ijk->crk", across.toarray(), down.toarray(), values)
    np.testing.assert_allclose(resampled(values, across, down), expected, atol=1e-5)


def test_end_slices_stand_for_missing_neighbours():
    slices = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    triples = with_neighbours(slices, neighbour_step(3.0))
    assert triples[:, :, 0, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert neighbour_step(1.25) == 2


def test_a_thin_bridge_does_not_join_two_parts():
    spacing = (4.0, 2.0, 2.0)
    shape = (20, 90, 90)
    first = ball(shape, (40.0, 60.0, 60.0), 28.0, spacing)
    second = ball(shape, (40.0, 60.0, 130.0), 20.0, spacing)
    bridge = np.zeros(shape, bool)
    bridge[9:11, 28:32, 30:65] = True
    affine = np.diag([2.0, 2.0, 4.0, 1.0])
    parts = find_candidates((first | second | bridge).astype(np.float32), affine, spacing)
    assert len(parts) == 2
    np.testing.assert_allclose(parts[0].centre, [60, 60, 40], atol=2)  # world: columns, rows, slices
    assert parts[0].volume == pytest.approx(4 / 3 * np.pi * 2.8**3, rel=0.1)
    assert (parts[0].part & first).sum() > 0.95 * first.sum()


def test_nothing_likely_is_no_part():
    assert find_candidates(np.full((5, 20, 20), 0.1, np.float32), np.eye(4), (3.0, 2.0, 2.0)) == []


def test_the_part_is_chosen_where_the_other_stacks_show_a_brain():
    stacks = [
        [candidate((0, 0, 0))],
        [candidate((120, 0, 0), volume=260.0), candidate((5, 5, 0))],
        [candidate((0, -8, 0))],
    ]
    assert choose(stacks) == [0, 1, 0]


def test_a_stack_without_parts_has_no_choice_and_is_doubtful():
    stacks = [[candidate((0, 0, 0))], []]
    assert choose(stacks) == [0, None]
    sentences = doubts(stacks, [stacks[0][0], None])
    assert sentences[0] is None
    assert sentences[1] == "no brain was found"


def test_twins_are_doubtful():
    stacks = [[candidate((0, 0, 0)), candidate((90, 0, 0), volume=180.0)]]
    (sentence,) = doubts(stacks, [stacks[0][0]])
    assert sentence is not None
    assert "twins" in sentence
    stacks = [[candidate((0, 0, 0)), candidate((45, 0, 0), volume=180.0)]]
    assert doubts(stacks, [stacks[0][0]]) == [None]  # nearer than another head could lie


def test_twins_in_most_stacks_make_all_doubtful():
    two = [candidate((0, 0, 0)), candidate((90, 0, 0), volume=180.0)]
    sentences = doubts([two, two, two[:1]], [two[0]] * 3)
    assert all(sentence is not None and "twins" in sentence for sentence in sentences)


def test_a_brain_far_from_the_others_is_doubtful():
    stacks = [[candidate((0, 0, 0))], [candidate((4, 0, 0))], [candidate((110, 0, 0))]]
    sentences = doubts(stacks, [parts[0] for parts in stacks])
    assert sentences[:2] == [None, None]
    assert sentences[2] is not None
    assert "110 mm" in sentences[2] or "108 mm" in sentences[2]


def test_one_of_three_that_none_confirms_is_doubtful():
    brain, odd = candidate((0, 0, 0)), candidate((3, 0, 0), certainty=0.5)
    assert (
        doubts([[brain], [odd], [odd]], [brain, odd, odd])[0] == "no other stack shows a brain that confirms this one"
    )
    assert doubts([[brain], [odd]], [brain, odd])[0] is None
    assert doubts([[brain], [brain], [odd]], [brain, brain, odd])[:2] == [None, None]


def test_a_head_alone_or_a_masked_brain_shows_no_mother():
    rng = np.random.default_rng(0)
    affine = np.diag([1.5, 1.5, 4.0, 1.0])
    head = ball((120, 120, 20), (90.0, 90.0, 40.0), 50.0, (1.5, 1.5, 4.0))
    image = head * (400 + 50 * rng.standard_normal(head.shape))
    assert not shows_more_than_a_brain(image.astype(np.float32), affine)
    air = np.abs(5 * rng.standard_normal(head.shape))
    assert not shows_more_than_a_brain((image + air).astype(np.float32), affine)
    mother = ball((200, 200, 20), (150.0, 150.0, 40.0), 120.0, (1.5, 1.5, 4.0))
    assert shows_more_than_a_brain((mother * 300.0).astype(np.float32), affine)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.float32), np.full((8, 8, 3), np.nan, np.float32)])
def test_images_that_cannot_be_searched_are_named(wrong):
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match=r"stack 3"):
        find_brains([(wrong, np.eye(4))], ["stack 3"])


def test_an_empty_picture_is_doubtful_and_keeps_its_shape():
    pytest.importorskip("onnxruntime")
    (found,) = find_brains([(np.zeros((50, 40, 6), np.float32), np.diag([1.0, 1.0, 3.0, 1.0]))], ["empty"])
    assert found.mask.shape == (50, 40, 6)
    assert not found.mask.any()
    assert found.confidence == 0
    assert found.doubt is not None


def test_the_brain_is_found_in_real_stacks(shared_data):
    """Two runs in different directions; the masks they are compared with were drawn by hand."""
    pytest.importorskip("onnxruntime")
    folder = shared_data / "fetal-mial-sub-01"
    volumes, drawn = [], []
    for run in (2, 3):
        volumes.append(read(folder / f"sub-01_run-{run}_T2w.nii.gz"))
        drawn.append(read(folder / f"sub-01_run-{run}_desc-brain_mask.nii.gz")[0] > 0)
        assert shows_more_than_a_brain(*volumes[-1])
    steps: list[tuple[int, int]] = []
    brains = find_brains(volumes, ["run 2", "run 3"], searching=lambda *step: steps.append(step))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for found, by_hand in zip(brains, drawn, strict=True):
        assert found.doubt is None
        assert 2 * (found.mask & by_hand).sum() / (found.mask.sum() + by_hand.sum()) > 0.85


def test_stacks_cut_down_to_the_brain_are_recognised(shared_data):
    for path in sorted((shared_data / "fetpype-simu001").glob("*_T2w.nii.gz")):
        assert not shows_more_than_a_brain(*read(path)), path.name
    for path in sorted((shared_data / "svrtk-simulated").glob("stack-*.nii.gz")):
        assert not shows_more_than_a_brain(*read(path)), path.name
