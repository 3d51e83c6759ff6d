"""Every backend against the reference, values and derivatives; culling against its bound."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gsvr.backends import lattice_kernel
from gsvr.backends.cpu.lattice import CpuKernel
from gsvr.backends.windows import slice_windows
from gsvr.compiled import LANES
from gsvr.errors import InputError
from tests.acquisitions import random_amplitudes, small_lattice, small_slices, spread_of

torch = pytest.importorskip("torch", reason="the reference needs PyTorch")
from gsvr.backends.torch.reference import ReferenceKernel  # noqa: E402

# float32 sums of a few hundred terms, exp good to 5e-6: relative to the largest value
TOLERANCE = 3e-5


def kernels(profile: str, binning: int = 1, cutoff: float = 6.0):
    """CPU kernel and float64 reference with a cut-off so wide that it costs nothing (6 sigma: 1.5e-8)."""
    slices, poses = small_slices()
    slices = slices.binned(binning)
    lattice = small_lattice()
    windows = slice_windows(lattice, slices, poses, spread_of(slices, profile), cutoff)
    return slices, lattice, CpuKernel(lattice, windows), ReferenceKernel(lattice, windows, torch.float64)


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
@pytest.mark.parametrize("binning", [1, 2, 4])
def test_values_and_derivatives_agree(profile: str, binning: int) -> None:
    _, lattice, cpu, reference = kernels(profile, binning)
    amplitudes = random_amplitudes(lattice)
    measured, expected = cpu.derivatives(amplitudes).astype(np.float64), reference.derivatives(amplitudes)
    for name, got, want in zip(("value", "du", "dv", "dw", "tu", "tv", "tw"), measured, expected, strict=True):
        scale = np.abs(expected[:4]).max() if name == "tw" else np.abs(want).max()
        assert np.abs(got - want).max() <= TOLERANCE * scale, name
        if np.linalg.norm(want) > 0.01 * np.linalg.norm(expected[1]):
            cosine = got @ want / (np.linalg.norm(got) * np.linalg.norm(want))
            assert cosine > 1 - 1e-8, name
            assert abs((got - want).mean()) < 1e-6 * scale, name
    assert np.array_equal(cpu.predict(amplitudes), measured[0].astype(np.float32))


def test_both_kinds_of_windows_are_compared() -> None:
    """Those that fit into one vector have kernels of their own."""
    wide, short = (kernels("slab", binning)[2].windows for binning in (1, 4))
    assert max(wide.n_rows, wide.n_columns) > LANES
    assert max(short.n_rows, short.n_columns) <= LANES


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
@pytest.mark.parametrize("binning", [1, 4])
def test_adjoints_agree(profile: str, binning: int) -> None:
    slices, _, cpu, reference = kernels(profile, binning)
    pixels = np.random.default_rng(1).normal(size=len(slices.values)).astype(np.float32)
    for got, want in (
        (cpu.adjoint(pixels), reference.adjoint(pixels)),
        (cpu.squared_adjoint(pixels), reference.squared_adjoint(pixels)),
    ):
        assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


@pytest.mark.parametrize("cutoff", [2.0, 3.0, 3.5])
def test_what_culling_leaves_out_stays_below_its_bound(cutoff: float) -> None:
    _, lattice, _, exact = kernels("slab")
    _, _, culled, _ = kernels("slab", cutoff=cutoff)
    amplitudes = random_amplitudes(lattice)
    error = np.abs(culled.predict(amplitudes) - exact.predict(amplitudes))
    # every term left out is below exp(-cutoff^2 / 2) of its peak; the sum over all Gaussians bounds them together
    peaks = culled.windows.peaks.sum(axis=1).max()
    assert error.max() <= np.exp(-(cutoff**2) / 2) * peaks * np.abs(amplitudes).sum()
    assert error.max() > 0


def test_result_does_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    slices, lattice, cpu, _ = kernels("slab", cutoff=3.0)
    amplitudes = random_amplitudes(lattice)
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("GSVR_THREADS", threads)
        results.append((cpu.predict(amplitudes), cpu.adjoint(slices.values)))
    for prediction, transposed in results[1:]:
        assert np.array_equal(prediction, results[0][0])
        assert np.array_equal(transposed, results[0][1])


def test_threads_of_the_caller_do_not_share_work_space() -> None:
    _, _, kernel, _ = kernels("gaussian")
    pixels = np.random.default_rng(0).normal(size=(3, int(kernel.windows.first_pixel[-1]))).astype(np.float32)
    alone = [kernel.adjoint(row) for row in pixels]

    def same(i: int) -> bool:
        return all(np.array_equal(kernel.adjoint(pixels[i]), alone[i]) for _ in range(50))

    with ThreadPoolExecutor(3) as callers:
        assert list(callers.map(same, range(3))) == [True, True, True]


def test_unknown_backend_is_refused_by_name() -> None:
    slices, poses = small_slices()
    lattice = small_lattice()
    windows = slice_windows(lattice, slices, poses, spread_of(slices))
    with pytest.raises(InputError, match="cuda9"):
        lattice_kernel("cuda9", lattice, windows)
