"""The speed benchmark counts what it says it counts, and its clock does not count twice."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import speed_acquisitions
from benchmarks.clock import timed
from benchmarks.speed_acquisitions import SpeedAcquisition
from benchmarks.speed_ceilings import measure_ceilings
from benchmarks.speed_operator import measure_stage, measure_threads, slices_of, stage_problem, work_per_splat
from benchmarks.speed_plots import slope
from benchmarks.speed_profile import Clock
from gsvr.backends.cpu.lattice import CpuLatticeKernel
from gsvr.model.fields import LatticeField
from gsvr.model.volume import Volume
from gsvr.solver.schedule import Stage
from tests.acquisitions import small_lattice, small_slices

STAGE = Stage("tiny", 2.0, 1, 1, 1)


def test_the_operator_is_measured():
    slices, _ = small_slices()
    row = measure_stage(slices, STAGE, repeats=1)
    spent = row["nanoseconds_per_splat"]
    assert all(0 < value < 1e6 for name, value in spent.items() if name != "plan")
    assert row["cpu_seconds"]["predict"] == pytest.approx(1e-9 * spent["predict"] * row["splats"])
    threads = measure_threads(slices, STAGE, 2, repeats=1)
    assert [entry["threads"] for entry in threads] == [1, 2]


def test_splats_are_pairs_of_a_gaussian_and_a_slice_that_touch():
    """Counted from the definition of the cut-off, with a margin of a rounding error for those just on it.

    A row of the lattice is taken as a whole, from its first Gaussian to its last.
    """
    slices, _ = small_slices()
    _, lattice, windows = stage_problem(slices, STAGE)
    started, ended = (np.maximum.accumulate(part, axis=2) for part in (lattice.support, lattice.support[:, :, ::-1]))
    sites = np.argwhere(started & ended[:, :, ::-1])
    counts = []
    for margin in (-1e-6, 1e-6):
        count = 0
        for s, matrix in enumerate(windows.from_lattice):
            u, v, w = matrix[:, :3] @ sites.T + matrix[:, 3:]
            touches = (windows.depth[s, 0] - margin <= w) & (w <= windows.depth[s, 1] + margin)
            for axis, place in enumerate((u, v)):
                reach = windows.reach[s, axis] + margin
                touches &= (place >= -reach) & (place <= windows.shapes[s, axis] - 1 + reach)
            count += int(touches.sum())
        counts.append(count)
    assert counts[0] <= CpuLatticeKernel(lattice, windows).n_splats <= counts[1]


def test_operations_grow_with_the_window():
    slices, _ = small_slices()
    fine, coarse = (work_per_splat(stage_problem(slices, replace(STAGE, spacing=spacing))[2]) for spacing in (1.0, 4.0))
    assert coarse["window_pixels"] > fine["window_pixels"]
    for counted in (fine, coarse):
        assert counted["window_lanes"] >= counted["window_pixels"]
        assert counted["predict_operations"] > 2 * counted["window_lanes"]
        assert counted["derivatives_operations"] > 7 * 2 * counted["window_lanes"]


def test_ceilings_are_those_of_a_computer():
    found = measure_ceilings(repeats=1, loops=200, size=2**16, matrix=128)
    assert all(0.01 < value < 1e5 for value in found.values())


def test_an_acquisition_has_moved_slices_and_about_its_pixels(monkeypatch: pytest.MonkeyPatch):
    lattice = small_lattice(2.0, 1.5, 20.0)
    # equal amplitudes 1 are a constant field of (1.5 sqrt(2 pi) / 2)^3 = 6.6
    smooth = LatticeField(lattice, lattice.support.astype(np.float32))
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -20
    ball = np.linalg.norm(np.indices((41, 41, 41)) - 20, axis=0) < 18
    phantom = Volume(ball.astype(np.float32) * 6.6, affine, ball)
    monkeypatch.setattr(speed_acquisitions, "phantom_field", lambda: (smooth, phantom))
    stacks = speed_acquisitions.make_stacks(SpeedAcquisition("tiny", 4, 2.0, 3.0))
    slices = slices_of(stacks)
    expected = 4 * ball.sum() / (2.0 * 2.0 * 3.0)
    assert expected < slices.n_pixels < 2 * expected
    orientations = {tuple(np.rint(stack.affine[:3, 2] / 3)) for stack in stacks[:3]}
    assert len(orientations) == 3


def test_the_first_call_is_not_timed():
    calls: list[int] = []
    times = timed(lambda: calls.append(sum(range(10_000 if calls else 4_000_000))), repeats=3)
    assert len(calls) == 4
    assert times.cpu < 0.01  # the first call takes some 0.04 s
    assert times.median_wall >= times.wall > 0


def test_the_clock_counts_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "busy.py").write_text(
        "from time import process_time\n"
        "def spend(seconds):\n"
        "    end = process_time() + seconds\n"
        "    while process_time() < end: pass\n"
        "def inner(): spend(0.05)\n"
        "def outer():\n"
        "    inner()\n"
        "    list(map(lambda part: sum(range(400_000)), range(8)))\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    import busy  # pyright: ignore[reportMissingImports]

    with Clock(tmp_path) as clock:
        busy.outer()
    assert sys.getprofile() is None
    assert clock.seconds["busy: spend"] == pytest.approx(0.05, abs=0.01)
    assert clock.seconds["busy: inner"] < 0.01
    assert clock.seconds["busy: outer"] > 0.01  # with its lambda, and without what it calls by name
    shown = clock.largest(1)
    assert list(shown)[1:] == ["everything else"]
    assert sum(shown.values()) == pytest.approx(sum(clock.seconds.values()))


def test_slope_of_a_power_law():
    x = np.array([1.0, 10.0, 100.0])
    assert slope(x, 3 * x**1.5) == pytest.approx(1.5)
