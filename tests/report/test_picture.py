"""Pictures show every anatomy the right way up, whatever the order and direction of its voxel axes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsvr.errors import InputError
from gsvr.model.geometry import rotation_from_vector
from gsvr.model.volume import Volume
from gsvr.report.picture import PLANES, PictureOptions, mid_slices_picture, panel_box, save_mid_slices

SMALL = PictureOptions(panel_size=96)
# A bright ball of this radius (mm) sits this far to the left, the front and the top of the centre.
RADIUS, CORNER = 9.0, np.array([-14.0, 14.0, 14.0])


def marked_volume(axes: np.ndarray, spacing: np.ndarray | None = None, shift: float = 0.0) -> Volume:
    """A dim ball of 30 mm, brighter to the front, with the bright one in it.

    The columns of `axes` are the world directions of the voxel axes.
    """
    spacing = np.array([1.5, 1.5, 2.0]) if spacing is None else spacing
    shape = tuple(np.ceil(80 / spacing).astype(int))
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2 + shift
    points = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3] - shift
    mask = np.linalg.norm(points, axis=-1) < 30
    dim = 20 + points @ [0.1, 0.4, 0.2]
    data = np.where(np.linalg.norm(points - CORNER, axis=-1) < RADIUS, 100, np.where(mask, dim, 0))
    return Volume(data.astype(np.float32), affine, mask)


def panel(picture: Image.Image, row: int, plane: str, options: PictureOptions = SMALL) -> np.ndarray:
    """Grey values of a panel without the letters at its edges."""
    left, top, right, bottom = panel_box(row, PLANES.index(plane), options)
    values = np.asarray(picture.crop((left, top, right, bottom)).convert("L"), dtype=float)
    edge = 24
    values[[*range(edge), *range(-edge, 0)], 40:56] = 0
    values[40:56, [*range(edge), *range(-edge, 0)]] = 0
    return values


def brightest(values: np.ndarray) -> tuple[str, str]:
    """Quarter of the panel in which the bright ball is."""
    rows, columns = np.nonzero(values > 200)
    middle = (len(values) - 1) / 2
    return (
        "top" if rows.mean() < middle else "bottom",
        "left" if columns.mean() < middle else "right",
    )


def all_axes() -> list[np.ndarray]:
    """All 48 ways to lay voxel axes along the axes of the world."""
    return [
        np.eye(3)[:, list(order)] * signs
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1.0, -1.0), repeat=3)
    ]


@pytest.mark.parametrize("axes", all_axes()[::5])
def test_every_affine_is_shown_the_right_way_up(axes: np.ndarray):
    # With the bright ball as its mask the planes go through it.
    volume = marked_volume(axes)
    through_ball = Volume(volume.data, volume.affine, volume.data > 50)
    options = PictureOptions(panel_size=96, crop=False)
    picture = mid_slices_picture([("ball", through_ball)], options)
    assert brightest(panel(picture, 0, "axial")) == ("top", "right")
    assert brightest(panel(picture, 0, "coronal")) == ("top", "right")
    assert brightest(panel(picture, 0, "sagittal")) == ("top", "left")


def test_neurological_convention_mirrors_left_and_right():
    volume = marked_volume(np.eye(3))
    through_ball = Volume(volume.data, volume.affine, volume.data > 50)
    options = PictureOptions(panel_size=96, crop=False, convention="neurological")
    picture = mid_slices_picture([("ball", through_ball)], options)
    assert brightest(panel(picture, 0, "axial", options)) == ("top", "left")
    assert brightest(panel(picture, 0, "coronal", options)) == ("top", "left")
    assert brightest(panel(picture, 0, "sagittal", options)) == ("top", "left")


def test_all_affines_give_the_same_picture():
    pictures = [
        np.asarray(mid_slices_picture([("", marked_volume(axes, np.full(3, 1.5)))], SMALL), dtype=float)
        for axes in all_axes()[::7]
    ]
    for other in pictures[1:]:
        # The extent of a mask is the same to a voxel, not to a pixel.
        assert np.abs(other - pictures[0]).mean() < 1.0


def test_an_oblique_volume_is_not_tilted():
    rotation = rotation_from_vector(np.radians([20.0, -25.0, 35.0]))
    straight = mid_slices_picture([("", marked_volume(np.eye(3)))], SMALL)
    oblique = mid_slices_picture([("", marked_volume(rotation))], SMALL)
    for plane in PLANES:
        first, second = panel(straight, 0, plane), panel(oblique, 0, plane)
        assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.95


def test_cropping_fills_the_panel_with_the_mask():
    volume = marked_volume(np.eye(3))
    options = PictureOptions(panel_size=96, margin=0.0)
    filled = panel(mid_slices_picture([("", volume)], options), 0, "axial", options)
    whole = panel(mid_slices_picture([("", volume)], PictureOptions(panel_size=96, crop=False)), 0, "axial")
    width = {name: np.ptp(np.nonzero(values > 3)[1]) for name, values in (("filled", filled), ("whole", whole))}
    # A disc of 60 mm in a field as wide, and in one of 80 mm.
    assert width["filled"] == pytest.approx(96, abs=5)
    assert width["whole"] == pytest.approx(96 * 60 / 80, abs=5)


def test_one_window_or_one_each():
    volume = marked_volume(np.eye(3))
    dim = Volume(volume.data / 4, volume.affine, volume.mask)
    shared = mid_slices_picture([("a", volume), ("b", dim)], SMALL)
    assert panel(shared, 1, "axial").max() < 0.5 * panel(shared, 0, "axial").max()
    own = mid_slices_picture([("a", volume), ("b", dim)], PictureOptions(panel_size=96, shared_window=False))
    np.testing.assert_allclose(panel(own, 1, "axial"), panel(own, 0, "axial"), atol=1)


def test_a_few_negative_voxels_leave_the_background_black():
    volume = marked_volume(np.eye(3))
    index = np.argwhere(np.asarray(volume.mask))
    for share, background in ((0.03, 0), (0.3, 100)):
        data = volume.data.copy()
        data[tuple(index[:: int(1 / share)].T)] = -60
        shown = panel(mid_slices_picture([("", Volume(data, volume.affine, volume.mask))], SMALL), 0, "axial")
        assert shown[88, 24] == pytest.approx(background, abs=25)


def test_one_position_or_one_each():
    volume, elsewhere = marked_volume(np.eye(3)), marked_volume(np.eye(3), shift=200.0)
    shared = mid_slices_picture([("a", volume), ("b", elsewhere)], SMALL)
    assert panel(shared, 1, "axial").max() < 10
    own_options = PictureOptions(panel_size=96, shared_position=False)
    own = mid_slices_picture([("a", volume), ("b", elsewhere)], own_options)
    np.testing.assert_allclose(panel(own, 1, "axial"), panel(own, 0, "axial"), atol=1)


def test_differences_are_shown_inside_the_mask_of_the_first():
    volume = marked_volume(np.eye(3))
    options = PictureOptions(panel_size=96, difference=True)
    brighter = Volume(volume.data + 30, volume.affine)
    picture = mid_slices_picture([("a", volume), ("same", volume), ("brighter", brighter)], options)
    assert panel_box(4, 0, options)[3] < picture.height < panel_box(5, 0, options)[3]
    assert panel(picture, 2, "axial", options).max() < 2
    difference = panel(picture, 4, "axial", options)
    assert difference[30, 48] > 50
    assert difference[2, 2] < 2
    red, _, blue = np.asarray(picture)[panel_box(4, 0, options)[1] + 30, panel_box(4, 0, options)[0] + 48]
    assert red > blue


def test_picture_without_mask_or_contrast_still_appears():
    flat = Volume(np.zeros((8, 9, 10), dtype=np.float32), np.eye(4))
    values = panel(mid_slices_picture([("nothing", flat)], SMALL), 0, "axial")
    assert values.max() < 10


def test_file_holds_the_picture(tmp_path: Path):
    volume = marked_volume(np.eye(3))
    path = tmp_path / "new" / "picture.png"
    save_mid_slices(path, [("a label much longer than the picture is wide " * 5, volume)], SMALL)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size[0] == panel_box(0, 2, SMALL)[2] + panel_box(0, 0, SMALL)[0]
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


def test_what_cannot_be_drawn_is_refused(tmp_path: Path):
    volume = marked_volume(np.eye(3))
    with pytest.raises(InputError, match="png"):
        save_mid_slices(tmp_path / "picture.jpg", [("a", volume)])
    with pytest.raises(ValueError, match="no volumes"):
        mid_slices_picture([])
    with pytest.raises(ValueError, match="shared"):
        mid_slices_picture([("a", volume)], PictureOptions(difference=True, shared_window=False))
