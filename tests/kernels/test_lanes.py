"""Eight lanes at a time: powers of two, and the sum of the lanes."""

# Numba's intrinsics have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np
import pytest
from numba import njit, types
from numba.extending import intrinsic

from gsvr.kernels import lanes


@intrinsic
def _powers(typing_context, source, target, offset):
    signature = types.void(source, target, types.int64)

    def generate(context, builder, signature, arguments):
        source, target = (lanes.data(context, builder, signature.args[n], arguments[n]) for n in range(2))
        values = lanes.power_of_two(builder, lanes.load_vector(builder, source, arguments[2]))
        builder.store(values, lanes.vector_pointer(builder, target, arguments[2]), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _total(typing_context, source):
    signature = types.float32(source)

    def generate(context, builder, signature, arguments):
        pointer = lanes.data(context, builder, signature.args[0], arguments[0])
        zero = lanes.ir.Constant(lanes.INTEGER, 0)
        whole = lanes.add(builder, lanes.load_vector(builder, pointer, zero), lanes.lane_numbers())
        return lanes.total(builder, lanes.multiply(builder, whole, lanes.constant(2.0)))

    return signature, generate


@njit
def powers(source, target):
    for offset in range(0, len(source), lanes.LANES):
        _powers(source, target, offset)


@njit
def total(source):
    return _total(source)


def power_of_two(x: np.ndarray) -> np.ndarray:
    out = np.zeros_like(x)
    powers(x, out)
    return out


@pytest.mark.parametrize(("least", "most", "bound"), [(-126, 115, 5e-6), (-23, 0, 1.5e-6)])
def test_power_of_two_is_good_to_its_bound(least: float, most: float, bound: float):
    x = np.linspace(least, most, 400_000).astype(np.float32)[1:]
    assert np.abs(power_of_two(x) / np.exp2(x.astype(np.float64)) - 1).max() < bound


def test_whole_powers_of_two_are_exact_to_a_unit_in_the_last_place():
    x = np.arange(-125, 116).astype(np.float32)[:240]
    assert np.abs(power_of_two(x) / np.exp2(x.astype(np.float64)) - 1).max() < 1.2e-7


def test_power_of_two_far_below_is_nothing():
    x = np.array([-127, -140, -1e3, -1e6, -1e30, -126.5, -130, -3e38], np.float32)
    assert np.all(power_of_two(x) == 0)


def test_all_lanes_are_summed():
    values = np.array([1, 2, 4, 8, 16, 32, 64, 128], np.float32)
    assert total(values) == 2 * (255 + 28)
