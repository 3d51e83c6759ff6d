"""Training of the brain masks: scenes repeat, planes lie where they should, and training goes on where it stopped."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from training.brain_mask import train as training
from training.brain_mask.atlases import Atlas, read_atlases
from training.brain_mask.fields import Fields, random_rotation
from training.brain_mask.frame import Frame
from training.brain_mask.scene import SceneOptions, draw_scene


@pytest.fixture(scope="module")
def ball_atlas() -> Atlas:
    """A ball of two tissues for a brain."""
    grid = np.stack(np.meshgrid(*[np.arange(-60, 61, 2.0)] * 3, indexing="ij"))
    radius = np.linalg.norm(grid, axis=0)
    labels = np.where(radius < 25, 1, np.where(radius < 30, 5, 0)).astype(np.uint8)
    origin = np.full(3, -60.0)
    return Atlas("ball", labels, 2.0, origin, (radius - 32).astype(np.float32), 2.0, origin, np.full(3, 32.0))


def test_fields_have_unit_variance():
    axis = np.arange(0, 200, 2.0)
    fields = Fields(np.random.default_rng(0), np.arange(0, 60, 3.0), axis, axis).draw(10.0, 4)
    assert fields.shape == (4, 20, 100, 100)
    assert abs(float(fields.mean())) < 0.1
    assert float(fields.std()) == pytest.approx(1, abs=0.15)


def test_frame_agrees_with_positions():
    rng = np.random.default_rng(1)
    depths, rows, columns = np.array([-3.0, 0.0, 4.0]), np.linspace(-9, 9, 5), np.linspace(-8, 8, 6)
    turns, shifts = np.stack([random_rotation(rng) for _ in depths]), rng.normal(0, 5, (3, 3))
    frame = Frame(depths, rows, columns, turns, shifts)
    z, y, x = np.meshgrid(depths, rows, columns, indexing="ij")
    positions = np.einsum("pij,jprc->iprc", turns, np.stack([x, y, z])) + shifts.T[:, :, None, None]
    origin, direction = rng.normal(0, 5, 3), rng.standard_normal(3)
    from_origin = positions - origin[:, None, None, None]
    np.testing.assert_allclose(frame.along(direction, origin), np.tensordot(direction, from_origin, 1), atol=1e-4)
    np.testing.assert_allclose(frame.squared_distance(origin), (from_origin**2).sum(0), rtol=1e-4, atol=1e-3)


def test_a_scene_depends_on_its_seed_only(ball_atlas):
    options = SceneOptions(size=48, n_slices=3)
    first, again, other = (draw_scene(np.random.default_rng(seed), [ball_atlas], options) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)
    assert first.images.shape == first.mask.shape == (3, 48, 48)


def test_scenes_are_finite_and_masks_are_parts(ball_atlas):
    options = SceneOptions(size=48, n_slices=3)
    with_brain = 0
    for seed in range(25):
        scene = draw_scene(np.random.default_rng(seed), [ball_atlas], options)
        assert np.isfinite(scene.images).all()
        assert scene.images.min() >= 0
        assert 0 <= scene.mask.min() <= scene.mask.max() <= 1
        with_brain += bool(scene.mask.any())
    assert 5 < with_brain < 25


def test_training_goes_on_where_it_stopped(ball_atlas, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(training, "read_atlases", lambda folder: [ball_atlas])
    scenes = SceneOptions(size=32, n_slices=2)
    options = training.TrainingOptions(steps=4, batch=2, kept_scenes=24, saved_every=2)
    straight = training.train(tmp_path, tmp_path / "straight", options, scenes)

    monkeypatch.setattr(training, "rate_at", lambda step, given, rate=training.rate_at: rate(step, options))
    half = training.TrainingOptions(steps=2, batch=2, kept_scenes=24, saved_every=2)
    training.train(tmp_path, tmp_path / "halted", half, scenes)
    halted = training.train(tmp_path, tmp_path / "halted", options, scenes)
    first, second = (torch.load(path, weights_only=True) for path in (straight, halted))
    assert first["step"] == second["step"] == 4
    for name, value in first["averaged"].items():
        torch.testing.assert_close(value, second["averaged"][name], msg=name)


def test_exported_weights_go_back_into_a_network(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    import onnxruntime

    from training.brain_mask.export import export, load_exported
    from training.brain_mask.network import BrainNetwork

    torch.manual_seed(0)
    network, images = BrainNetwork(), torch.rand(4, 3, 32, 32)
    for _ in range(3):
        network.train()(images)  # statistics to fold
    torch.save({"averaged": network.state_dict(), "step": 3}, tmp_path / "checkpoint.pt")
    weights = tmp_path / "brain.onnx"
    export(tmp_path / "checkpoint.pt", weights)
    again = BrainNetwork()
    load_exported(again, weights, images)
    (expected,) = onnxruntime.InferenceSession(weights).run(None, {"slices": images.numpy()})
    for mode in (True, False):  # normalised by the batch or by what was stored, which is of the same images
        with torch.no_grad():
            torch.testing.assert_close(
                again.train(mode)(images).sigmoid(), torch.from_numpy(expected), atol=1e-3, rtol=0
            )
    with pytest.raises(ValueError, match="another network"):
        load_exported(BrainNetwork((8, 8, 8, 8)), weights, images)


def test_label_maps_are_read(shared_data, tmp_path):
    name = "GA24_notoperated_parcellation.nii.gz"
    (tmp_path / name).symlink_to(shared_data / "atlas-fidon-cc0" / name)
    (atlas,) = read_atlases(tmp_path)
    # the middle of the space inside the skull lies inside it, and the field of distances has its slope
    centre = np.rint(-atlas.distance_origin / atlas.distance_spacing).astype(int)
    assert atlas.distance[tuple(centre)] < -10
    assert float(atlas.distance.max()) > 30
    assert 20 < atlas.half_size.min() < atlas.half_size.max() < 45
