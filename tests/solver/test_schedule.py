"""The schedule: coarse to fine, everything used in the end, and defaults in one place."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from gsvr.model.point_spread import PROFILES
from gsvr.solver.schedule import SolverOptions, default_stages


@pytest.mark.parametrize("finest", [0.8, 1.1, 1.5])
def test_stages_go_from_coarse_to_fine(finest: float):
    stages = default_stages(finest)
    spacings = [stage.spacing for stage in stages]
    assert spacings == sorted(spacings, reverse=True)
    assert spacings[-1] == finest
    binnings = [stage.binning for stage in stages]
    assert binnings == sorted(binnings, reverse=True)


def test_stacks_move_first_then_slices_and_the_volume_comes_last():
    kinds = [stage.motion for stage in default_stages()]
    assert kinds[0] == "stacks"
    assert kinds[-1] == "none"
    assert set(kinds[1:-1]) == {"slices"}
    assert kinds.count("none") == 1


def test_the_last_stage_uses_every_pixel_of_an_agreed_mask():
    last = default_stages()[-1]
    assert last.binning == 1
    assert last.agree_on_mask
    assert not default_stages()[0].agree_on_mask  # before motion is known there is nothing to agree on


def test_names_are_distinct():
    names = [stage.name for stage in default_stages()]
    assert len(set(names)) == len(names)


def test_options_are_complete_and_immutable():
    options = SolverOptions()
    assert options.stages == default_stages()
    assert options.profile in PROFILES
    with pytest.raises(FrozenInstanceError):
        options.seed = 1  # pyright: ignore[reportAttributeAccessIssue]
    assert replace(options, seed=1).stages == options.stages


def test_slices_thicker_than_the_gaussians_are_apart_get_fewer_of_them():
    for finest, thickness, share in ((0.7, 3.0, 0.49), (1.0, 3.0, 1.0), (1.0, 2.0, 1.0), (0.7, 4.2, 0.25)):
        options = SolverOptions(stages=default_stages(finest, thickness=thickness))
        seeds = options.seeds_of(options.stages[-1])
        assert options.seeds.contrast / seeds.contrast == pytest.approx(share)
        assert replace(seeds, contrast=options.seeds.contrast) == options.seeds
