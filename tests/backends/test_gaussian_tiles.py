"""Kernels of free Gaussians on tiles, plain and by Triton, against the reference and the CPU's kernels."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import ModuleType

import numpy as np
import pytest

from gsvr.backends import gaussian_kernel
from gsvr.backends.cpu.gaussians import CpuGaussianKernel
from gsvr.backends.views import SliceViews, nearest_radii, slice_views
from gsvr.model.fields import GaussianField
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator, moved_poses
from gsvr.render.sampling import points_only
from tests.acquisitions import small_slices, spread_of

torch = pytest.importorskip("torch", reason="kernels of tiles need PyTorch")
from torch import Tensor  # noqa: E402

from gsvr import forward  # noqa: E402
from gsvr.backends import plain_gaussians  # noqa: E402
from gsvr.backends.torch.gaussian_reference import covariances, responses  # noqa: E402
from gsvr.backends.torch.gaussians import (  # noqa: E402
    DeviceGaussianKernel,
    HostGaussianKernel,
    triton_gaussian_kernels,
)
from tests.backends.tiled_kernels import CARD, DEVICE, HAS_TRITON, TRITON  # noqa: E402

# float32 exponents of up to twenty, so values good to a few millionths; relative to the largest
TOLERANCE = 4e-6
BOTH = pytest.mark.parametrize("name", ["plain", TRITON])


def kernels(name: str) -> ModuleType:
    return plain_gaussians if name == "plain" else triton_gaussian_kernels()


@pytest.fixture(autouse=True)
def _large_chunks(monkeypatch: pytest.MonkeyPatch):
    """The interpreter takes as long for a small chunk as for a large one."""
    if HAS_TRITON and not CARD:
        monkeypatch.setattr(triton_gaussian_kernels(), "CHUNK", 32)


@cache
def random_field(n: int = 60, seed: int = 0, normalisation: float | None = None) -> GaussianField:
    rng = np.random.default_rng(seed)
    return GaussianField(
        rng.uniform(-7, 7, (n, 3)).astype(np.float32),
        np.log(rng.uniform(0.5, 2.5, (n, 3))).astype(np.float32),
        rng.normal(size=(n, 4)).astype(np.float32),
        rng.uniform(-0.5, 1.0, n).astype(np.float32),
        normalisation,
    )


def placed(profile: str = "slab", binning: int = 1, cutoff: float = 6.5, exact: bool = True):
    """Slices and views; by default with a cut-off so wide that it costs nothing."""
    slices, poses = small_slices()
    slices = slices.binned(binning)
    spread = points_only(slices.n_slices) if profile == "points" else spread_of(slices, profile)
    return slices, poses, slice_views(slices, poses, spread, cutoff, exact)


def matrix(field: GaussianField, slices: Slices, poses: np.ndarray, views: SliceViews) -> np.ndarray:
    """A by the definition, in float64."""
    means, sigma = (
        torch.tensor(field.means).double(),
        covariances(torch.tensor(field.log_scales).double(), torch.tensor(field.quaternions).double()),
    )
    rows, spread = [], views.spread
    points = slices.pixel_positions(poses)
    for s in range(slices.n_slices):
        axes = torch.tensor(poses[s, :3, :3] @ slices.frames[s, :3, :3])
        rows.append(
            responses(
                means, sigma, torch.tensor(points[slices.pixels_of(s)]).double(), axes,
                torch.tensor(spread.in_plane_variances[s]), torch.tensor(spread.weights),
                torch.tensor(spread.offsets[s]), torch.tensor(spread.variances[s]), views.exact,
            ).numpy()
        )  # fmt: skip
    return np.concatenate(rows)


def close(got: np.ndarray, want: np.ndarray) -> None:
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()
    assert np.linalg.norm(got - want) <= 2e-6 * np.linalg.norm(want)
    assert got @ want / (np.linalg.norm(got) * np.linalg.norm(want)) > 1 - 1e-11


def tensor(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).to(DEVICE)


def array(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()


@BOTH
@pytest.mark.parametrize(
    ("profile", "binning", "exact"), [("slab", 1, True), ("gaussian", 2, True), ("slab", 1, False), ("points", 1, True)]
)
def test_products_are_those_of_the_definition(name: str, profile: str, binning: int, exact: bool):
    slices, poses, views = placed(profile, binning, exact=exact)
    field = random_field()
    kernel = DeviceGaussianKernel(field, views, DEVICE, kernels(name))
    a = matrix(field, slices, poses, views)
    pixels = np.random.default_rng(1).normal(size=len(slices.values)).astype(np.float32)
    close(array(kernel.predict(tensor(field.amplitudes))), a @ field.amplitudes)
    close(array(kernel.adjoint(tensor(pixels))), a.T @ pixels)
    close(array(kernel.squared_adjoint(tensor(pixels))), (a * a).T @ pixels)


@BOTH
def test_adjoint_is_the_transpose_and_the_normal_product_both(name: str, monkeypatch: pytest.MonkeyPatch):
    slices, _, views = placed(cutoff=3.0)
    field = random_field()
    monkeypatch.undo()  # chunks as on a card
    kernel = DeviceGaussianKernel(field, views, DEVICE, kernels(name))
    rng = np.random.default_rng(2)
    pixels, weights = rng.normal(size=len(slices.values)), rng.random(len(slices.values))
    predicted = kernel.predict(tensor(field.amplitudes))
    backward = array(kernel.adjoint(tensor(pixels), tensor(weights)))
    difference = array(predicted) @ (weights * pixels) - field.amplitudes @ backward
    assert abs(difference) < 1e-6 * np.linalg.norm(array(predicted)) * np.linalg.norm(weights * pixels)
    along = torch.zeros_like(predicted)
    normal = kernel.normal(tensor(field.amplitudes), tensor(weights), along)
    assert torch.equal(along, predicted)
    close(array(normal), array(kernel.adjoint(tensor(weights) * predicted)))


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
@pytest.mark.parametrize("cutoff", [2.0, 3.0])
def test_the_same_pairs_are_seen_as_on_the_cpu(profile: str, cutoff: float):
    _, _, views = placed(profile, cutoff=cutoff)
    field = random_field(400, seed=3)
    lists = DeviceGaussianKernel(field, views, DEVICE).lists
    assert len(lists.gaussians) == CpuGaussianKernel(field, views).n_splats


@BOTH
def test_what_the_cutoff_leaves_out_stays_below_its_bound(name: str):
    slices, poses, views = placed(cutoff=2.5)
    field = random_field()
    kernel = DeviceGaussianKernel(field, views, DEVICE, kernels(name))
    a = matrix(field, slices, poses, views)
    error = np.abs(array(kernel.predict(tensor(field.amplitudes))) - a @ field.amplitudes)
    assert 1e-4 < error.max() <= np.exp(-(2.5**2) / 2) * np.abs(field.amplitudes).sum()


def test_slices_larger_than_a_tile():
    """37 x 21 pixels: six tiles, of which some are cut off; a list holds every window that meets its tile, once."""
    _, _, views = placed(cutoff=4.0)
    n = len(views.shapes)
    large = {"shapes": np.tile([37, 21], (n, 1)), "first_pixel": np.arange(n + 1) * 37 * 21}
    views = SliceViews(**{**vars(views), **large})
    field = random_field(200, seed=4)
    kernel, cpu = DeviceGaussianKernel(field, views, DEVICE), CpuGaussianKernel(field, views)
    assert kernel.lists.n_tiles == 6 * n
    got, want = array(kernel.predict(tensor(field.amplitudes))), cpu.predict(field.amplitudes)
    # the CPU cuts Gaussians off where a tile sees them whole
    assert np.abs(got - want).max() <= np.exp(-8.0) * np.abs(field.amplitudes).sum()
    lists = kernel.lists
    for tile in range(lists.n_tiles):
        listed = lists.splats[int(lists.first[tile]) : int(lists.first[tile + 1])]
        assert len(listed.unique()) == len(listed)


def test_tiles_without_needed_pixels_are_left_out():
    slices, _, views = placed()
    needed = np.zeros(len(slices.values), bool)
    needed[slices.pixels_of(2).start + 3] = True
    field = random_field()
    part, whole = (DeviceGaussianKernel(field, views, DEVICE, needed=which) for which in (needed, None))
    assert part.lists.n_tiles == 1
    amplitudes, piece = tensor(field.amplitudes), slices.pixels_of(2)
    got = part.predict(amplitudes)
    torch.testing.assert_close(got[piece], whole.predict(amplitudes)[piece])
    assert not got[: piece.start].any()


@BOTH
def test_deterministic_sums_are_exact_at_any_scale(name: str):
    slices, poses, views = placed()
    field = random_field()
    kernel = DeviceGaussianKernel(field, views, DEVICE, kernels(name), deterministic=True)
    pixels = np.random.default_rng(5).normal(size=len(slices.values)).astype(np.float32)
    want = matrix(field, slices, poses, views).T @ pixels
    for scale in (1e-9, 1e9):
        close(array(kernel.adjoint(tensor(scale * pixels))) / scale, want)
    assert torch.equal(kernel.adjoint(tensor(pixels)), kernel.adjoint(tensor(pixels)))
    assert not kernel.adjoint(tensor(0 * pixels)).any()


def test_deterministic_gradients_are_the_same_bits_again():
    slices, _, views = placed()
    field = random_field()
    pixels = tensor(np.random.default_rng(5).normal(size=len(slices.values)))
    kernel, other = (DeviceGaussianKernel(field, views, DEVICE, deterministic=wanted) for wanted in (True, False))
    first, second, want = (k.gradient(tensor(field.amplitudes), pixels) for k in (kernel, kernel, other))
    for one, again, part in zip(first, second, want, strict=True):
        assert torch.equal(one, again)
        torch.testing.assert_close(one, part, rtol=0, atol=1e-5 * float(part.abs().max()))


@BOTH
@pytest.mark.parametrize(("profile", "exact"), [("slab", True), ("slab-gaussian", False)])
def test_derivative_planes_are_those_of_the_cpu(name: str, profile: str, exact: bool):
    _, _, views = placed(profile, exact=exact)
    field = random_field(12)
    want = CpuGaussianKernel(field, views).derivatives(field.amplitudes)
    got = array(DeviceGaussianKernel(field, views, DEVICE, kernels(name)).derivatives(tensor(field.amplitudes)))
    for plane in range(7):
        scale = np.abs(want[plane]).max() if plane < 4 else np.abs(want[4:]).max()
        # the CPU's exponential is good to some millionths
        assert np.abs(got[plane] - want[plane]).max() <= 3e-5 * scale, plane


@BOTH
@pytest.mark.parametrize(("profile", "exact"), [("slab", True), ("slab-gaussian", False)])
def test_gradients_are_those_of_the_cpu(name: str, profile: str, exact: bool):
    slices, _, views = placed(profile, exact=exact)
    field = random_field(30)
    rng = np.random.default_rng(8)
    pixels, more = (rng.normal(size=len(slices.values)).astype(np.float32) for _ in range(2))
    want = CpuGaussianKernel(field, views).gradient(field.amplitudes, pixels, more)
    kernel = DeviceGaussianKernel(field, views, DEVICE, kernels(name))
    got = kernel.gradient(tensor(field.amplitudes), tensor(pixels), tensor(more))
    for part, expected in zip(got, (want.means, want.covariances, want.poses), strict=True):
        assert np.abs(array(part) - expected).max() <= 3e-5 * np.abs(expected).max()


@pytest.mark.parametrize("normalisation", [None, 0.1])
def test_the_operator_runs_on_a_device(normalisation: float | None, monkeypatch: pytest.MonkeyPatch):
    """Prediction, adjoint and derivatives by pose of the operator, for both kinds of fields."""
    slices, poses = small_slices()
    field = random_field(40, normalisation=normalisation)
    want = AcquisitionOperator(field, slices, poses, cutoff=6.5)
    monkeypatch.setattr(
        forward, "gaussian_kernel", lambda _, *given: HostGaussianKernel(given[0], given[1], str(DEVICE))
    )
    operator = AcquisitionOperator(field, slices, poses, backend="cuda", cutoff=6.5)
    for got, expected in zip(
        operator.pose_derivatives(field.amplitudes), want.pose_derivatives(field.amplitudes), strict=True
    ):
        assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()
    step = np.zeros((slices.n_slices, 6))
    step[:, 1] = 1e-3
    ends = [operator.with_poses(moved_poses(slices, poses, sign * step)).predict(field.amplitudes) for sign in (1, -1)]
    numeric, jacobian = (ends[0] - ends[1]) / 2e-3, operator.pose_derivatives(field.amplitudes)[1]
    assert np.abs(numeric - jacobian[1]).max() < 2e-3 * np.abs(jacobian[1]).max()
    got, expected = (one.geometry_gradient(field.amplitudes, slices.values) for one in (operator, want))
    for part in ("means", "covariances", "poses"):
        scale = np.abs(getattr(expected, part)).max()
        assert np.abs(getattr(got, part) - getattr(expected, part)).max() <= 1e-4 * scale, part


def test_nearest_neighbours_are_those_of_the_cpu():
    slices, poses, views = placed()
    field = replace(random_field(), log_scales=np.full((60, 3), np.log(2.5), np.float32))
    views = replace(views, squared_radii=nearest_radii(field.means, slices, poses, 4))
    kernel, want = DeviceGaussianKernel(field, views, DEVICE, kernels("plain")), CpuGaussianKernel(field, views)
    c, r = field.amplitudes, np.random.default_rng(3).normal(size=len(slices.values)).astype(np.float32)
    on_device, pixels = torch.as_tensor(c).to(DEVICE), torch.as_tensor(r).to(DEVICE)
    # float32 on both sides
    bound = 1e-5
    pairs = [
        (kernel.predict(on_device), want.predict(c)),
        (kernel.adjoint(pixels), want.adjoint(r)),
        (kernel.squared_adjoint(pixels), want.squared_adjoint(r)),
        *zip(kernel.gradient(on_device, pixels), vars(want.gradient(c, r)).values(), strict=True),
    ]
    for got, expected in pairs:
        assert np.abs(got.cpu().numpy() - expected).max() <= bound * np.abs(expected).max()
    everything = CpuGaussianKernel(field, replace(views, squared_radii=None)).predict(c)
    assert np.abs(everything - want.predict(c)).max() > 0.05 * np.abs(everything).max()


def test_what_a_device_cannot_do_is_said():
    slices, _, views = placed()
    limited = replace(views, squared_radii=np.ones(len(slices.values), np.float32))
    with pytest.raises(ValueError, match="nearest"):
        DeviceGaussianKernel(random_field(), limited, DEVICE).derivatives(torch.ones(60))
    kernel = gaussian_kernel("cuda", random_field(), views)
    assert isinstance(kernel, HostGaussianKernel)  # and no device is touched before it is used
