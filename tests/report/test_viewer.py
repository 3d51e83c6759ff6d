from __future__ import annotations

import base64
import gzip
import hashlib

import nibabel
import numpy as np

from gsvr.model.volume import Volume
from gsvr.report.niivue import LICENCES, SHA256
from gsvr.report.viewer import ViewedImage, bundle, viewed_images
from tests.moving_brain import moving_brain, small_brain


def test_the_bundle_is_the_published_one_and_has_its_licence() -> None:
    content = gzip.decompress(base64.b64decode(bundle()))
    assert hashlib.sha256(content).hexdigest() == SHA256
    assert "Copyright (c) 2021, Niivue" in LICENCES.read_text(encoding="utf-8")


def _read(image: ViewedImage) -> Volume:
    read = nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(image.content)))
    return Volume(np.asarray(read.dataobj, np.float32), np.asarray(read.affine))


def test_images_keep_place_and_intensity() -> None:
    volume = small_brain()
    shown = {image.role: image for image in viewed_images(volume, Volume(0.1 * volume.data, volume.affine))}
    assert volume.mask is not None
    read = _read(shown["volume"])
    assert np.allclose(read.affine, volume.affine, atol=1e-5)
    step = 1.1 * shown["volume"].high / 255
    tolerance = 0.51 * step  # half a level, and rounding of the header's float32
    seen = volume.data <= 1.1 * shown["volume"].high
    assert np.abs(read.data - volume.data)[seen & (volume.data >= 0)].max() < tolerance
    assert np.array_equal(_read(shown["mask"]).data > 0.5, volume.mask)
    assert shown["uncertainty"].low == 0


def test_stacks_are_cropped_to_the_surroundings_of_the_brain_and_stay_in_place() -> None:
    volume, stack = small_brain(), moving_brain().stacks[0]
    wide = Volume(np.pad(stack.data, ((60, 60), (0, 0), (0, 0))), stack.affine.copy())
    affine = stack.affine.copy()
    affine[:3, 3] -= 60 * affine[:3, 0]
    padded = type(stack)("wide", wide.data, affine, stack.thickness)
    shown = _read(viewed_images(volume, stacks=[padded])[-1])
    assert shown.data.shape[0] < wide.data.shape[0]
    corner = np.linalg.solve(padded.affine, shown.affine @ [0, 0, 0, 1])[:3]
    assert np.allclose(corner, np.round(corner), atol=1e-4)
    first = np.round(corner).astype(int)
    part = padded.data[tuple(slice(a, a + n) for a, n in zip(first, shown.data.shape, strict=True))]
    assert np.corrcoef(part.ravel(), shown.data.ravel())[0, 1] > 0.99
