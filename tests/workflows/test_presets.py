"""What presets, profiles, devices and seeds make of the options."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gsvr.backends.devices
from gsvr.backends.devices import Device
from gsvr.errors import InputError
from gsvr.solver.published import PublishedOptions, published_code
from gsvr.solver.schedule import SolverOptions, default_stages
from gsvr.workflows.presets import chosen_options


def test_each_preset_has_its_own_options(monkeypatch: pytest.MonkeyPatch):
    assert chosen_options("default", None, "cpu", 0, 0) == SolverOptions()
    assert chosen_options("paper", None, "cpu", 0, 0) == PublishedOptions()
    assert chosen_options("published-code", None, "cpu", 0, 0) == published_code()
    fast = chosen_options("fast", None, "cpu", 0, 0)
    assert fast == SolverOptions(stages=default_stages(free=False))
    assert not any(stage.free for stage in default_stages(free=False))
    monkeypatch.setattr(gsvr.backends.devices, "choose_device", lambda name: Device(name, "pretended"))
    assert chosen_options("default", "gaussian", "mps", 4, 3) == SolverOptions(
        profile="gaussian", backend="mps", seed=4, uncertainty_samples=3, estimate_thickness=False
    )
    assert chosen_options("default", None, "mps", 4, 3, search=False) == SolverOptions(
        backend="mps", seed=4, uncertainty_samples=3, search="none", estimate_thickness=False
    )
    assert chosen_options("paper", "slab", "cuda:1", 4, 0) == PublishedOptions(profile="slab", backend="cuda:1", seed=4)


def test_published_settings_have_no_uncertainty():
    with pytest.raises(InputError, match="`samples` cannot go with"):
        chosen_options("paper", None, "cpu", 0, 8)


def test_what_moves_is_chosen():
    still = chosen_options("default", None, "cpu", 0, 0, motion="none")
    assert still == SolverOptions(stages=default_stages(motion="none"))
    published = chosen_options("paper", None, "cpu", 0, 0, motion="none")
    assert published == replace(PublishedOptions(), moving=False)
    with pytest.raises(InputError, match="`motion` everything: choose one of"):
        chosen_options("default", None, "cpu", 0, 0, motion="everything")
    with pytest.raises(InputError, match="`motion` stacks cannot go with `preset` paper"):
        chosen_options("paper", None, "cpu", 0, 0, motion="stacks")
