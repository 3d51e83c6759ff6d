"""The schedule: coarse to fine, everything used in the end, and defaults in one place."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import jaxtyping
import pytest

from gsvr.model.point_spread import PROFILES
from gsvr.solver.schedule import Motion, SolverOptions, Stage, default_stages, moving_parts, restart_stages


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


@pytest.mark.parametrize("motion", ["slices", "stacks", "none"])
def test_nothing_moves_but_what_is_asked_for(motion: Motion):
    stages = default_stages(motion=motion)
    assert moving_parts(stages) == motion
    assert stages[-1] == default_stages()[-1]
    allowed = {"slices": {"slices", "stacks", "none"}, "stacks": {"stacks", "none"}, "none": {"none"}}[motion]
    assert {stage.motion for stage in stages} <= allowed


def test_the_last_stage_uses_every_pixel_of_a_consensus_mask():
    last = default_stages()[-1]
    assert last.binning == 1
    assert last.consensus_mask
    assert not default_stages()[0].consensus_mask  # before motion is known there is nothing to agree on


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


# --- what is refused, in one sentence that names the stage

STAGE = Stage("fine", 1.5, 1, 3, 5, "none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"motion": "rigid"}, "unknown motion 'rigid': choose one of stacks, slices, none"),
        ({"spacing": 0.0}, "spacing and sigma_ratio must be positive"),
        ({"sigma_ratio": -0.5}, "spacing and sigma_ratio must be positive"),
        ({"binning": 0}, "binning, outer_iterations and inner_iterations must be at least one"),
        ({"outer_iterations": 0}, "binning, outer_iterations and inner_iterations must be at least one"),
        ({"inner_iterations": 0}, "binning, outer_iterations and inner_iterations must be at least one"),
        ({"geometry_steps": 3}, "geometry steps need free Gaussians, and an outer iteration before and after"),
        (
            {"geometry_steps": 3, "free": True, "outer_iterations": 1},
            "geometry steps need free Gaussians, and an outer iteration before and after",
        ),
        ({"free": True, "motion": "slices"}, "free Gaussians need motion 'none': slices move on a lattice only"),
        ({"free": True, "motion": "stacks"}, "free Gaussians need motion 'none': slices move on a lattice only"),
    ],
)
def test_a_stage_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # what users run checks no annotations
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        replace(STAGE, **changes)
    assert str(refusal.value) == f"stage 'fine': {message}"


def test_a_schedule_begins_with_a_lattice():
    with pytest.raises(ValueError, match=r"^the schedule has no stages$"):
        SolverOptions(stages=())
    with pytest.raises(ValueError, match=r"^stage 'fine': free Gaussians need a field on a lattice to start from$"):
        SolverOptions(stages=(replace(STAGE, free=True),))
    assert SolverOptions(stages=(STAGE, replace(STAGE, free=True, geometry_steps=3))).stages[1].geometry_steps == 3


# --- what a stage asks for


def test_what_moves_in_a_stage_is_what_it_says():
    options = SolverOptions()
    models = [options.motion_of(replace(STAGE, motion=motion)) for motion in ("stacks", "slices", "none")]
    assert models == [options.stack_motion, options.motion, None]


def test_good_poses_are_refined_at_the_finest_resolution_of_motion_only():
    stages = default_stages()
    still, moving, *rest = restart_stages(stages)
    finest = [stage for stage in stages if stage.motion == "slices"][-1]
    assert moving == finest
    assert replace(still, name=finest.name, motion="slices") == finest
    assert still.motion == "none"
    assert tuple(rest) == stages[-1:]
    assert restart_stages((STAGE,)) == (STAGE,)
