"""Eight lanes at a time, for every set of instructions that the kernels are compiled for."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import gsvr.compiled

COMPILER = (sysconfig.get_config_var("CC") or "cc").split()
IS_X86 = platform.machine().lower() in {"x86_64", "amd64"}
INSTRUCTIONS = [("-msse4.2",), ("-mavx2", "-mfma")] if IS_X86 else [()]


@pytest.fixture(scope="module", params=INSTRUCTIONS, ids=lambda words: " ".join(words) or "default")
def lanes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if shutil.which(COMPILER[0]) is None:
        pytest.skip(f"no C compiler here ({COMPILER[0]})")
    source, headers = Path(__file__).with_name("lanes.c"), Path(gsvr.compiled.__file__).parent / "c"
    library = tmp_path_factory.mktemp("lanes") / "lanes.so"
    options = [*request.param, "-std=gnu11", "-O3", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi"]
    subprocess.run([*COMPILER, *options, f"-I{headers}", "-shared", "-fPIC", source, "-o", library], check=True)
    found = ctypes.CDLL(str(library))
    if "-mavx2" in request.param and gsvr.compiled.instructions() != "avx2":
        pytest.skip("this processor has no AVX2")
    return found


def place(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def power_of_two(lanes: ctypes.CDLL, x: np.ndarray) -> np.ndarray:
    out = np.zeros_like(x)
    assert len(x) % 8 == 0
    lanes.powers(place(x), place(out), ctypes.c_int64(len(x)))
    return out


@pytest.mark.parametrize(("least", "most", "bound"), [(-126, 115, 5e-6), (-23, 0, 1.5e-6)])
def test_power_of_two_is_good_to_its_bound(lanes: ctypes.CDLL, least: float, most: float, bound: float):
    x = np.linspace(least, most, 400_001).astype(np.float32)[1:]
    assert np.abs(power_of_two(lanes, x) / np.exp2(x.astype(np.float64)) - 1).max() < bound


def test_whole_powers_of_two_are_exact_to_a_unit_in_the_last_place(lanes: ctypes.CDLL):
    x = np.arange(-125, 116).astype(np.float32)[:240]
    assert np.abs(power_of_two(lanes, x) / np.exp2(x.astype(np.float64)) - 1).max() < 1.2e-7


def test_power_of_two_far_below_is_nothing(lanes: ctypes.CDLL):
    x = np.array([-127, -140, -1e3, -1e6, -1e30, -126.5, -130, -3e38], np.float32)
    assert np.all(power_of_two(lanes, x) == 0)


def test_rounding_up(lanes: ctypes.CDLL):
    x = np.array([0, 1, -1, 0.5, -0.5, 1.0001, -7.9999, 123456.25, 3, -3, 2.5, -2.5, 1e-7, -1e-7, 8388607, 99.5])
    out = np.zeros(16, np.float32)
    lanes.rounded_up(place(x.astype(np.float32)), place(out), ctypes.c_int64(16))
    assert np.array_equal(out, np.ceil(x.astype(np.float32)))


def test_all_lanes_are_summed(lanes: ctypes.CDLL):
    values, out = 2.0 ** np.arange(16, dtype=np.float32), np.zeros(2, np.float32)
    lanes.sums(place(values), place(out), ctypes.c_int64(16))
    assert out.tolist() == [255, 255 * 256]


def test_eight_vectors_are_turned(lanes: ctypes.CDLL):
    values, out = np.arange(64, dtype=np.float32), np.zeros((8, 8), np.float32)
    lanes.turned(place(values), place(out))
    assert np.array_equal(out, values.reshape(8, 8).T)


@pytest.mark.parametrize("count", [1, 5, 8])
def test_nothing_beyond_the_first_lanes_is_written(lanes: ctypes.CDLL, count: int):
    values, out = np.arange(1, 9, dtype=np.float32), np.full(8, -1, np.float32)
    lanes.first_of(place(values), place(out), ctypes.c_int64(count))
    assert np.array_equal(out, np.where(np.arange(8) < count, values, -1))


def test_smaller_and_larger(lanes: ctypes.CDLL):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 8)).astype(np.float32)
    out = np.zeros((2, 8), np.float32)
    lanes.extremes(place(a), place(b), place(out))
    assert np.array_equal(out, [np.minimum(a, b), np.maximum(a, b)])
