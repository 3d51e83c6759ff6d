"""A reconstruction that is put aside at any moment goes on to the same result, to the bit."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from gsvr.model.fields import GaussianField
from gsvr.model.slices import Slices
from gsvr.solver.checkpoint import Checkpoint
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import Result
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import moving_brain

# every stage differs in its binning, its lattice and what moves; the mask changes twice
STAGES = (
    Stage("stacks", 4.0, 3, 2, 2, "stacks", 0.8, settled=0.0),
    Stage("slices", 3.0, 2, 3, 2, consensus_mask=True, settled=0.0),
    Stage("volume", 2.5, 1, 2, 3, "none", 0.6, consensus_mask=True),
    Stage("free", 2.5, 1, 3, 3, "none", 0.6, free=True, geometry_steps=2),
)
OPTIONS = SolverOptions(stages=STAGES, uncertainty_samples=1)
MOMENTS = (
    ("stacks", 1),  # in the first stage
    ("stacks", 2),  # at the end of the stage of whole stacks, before lost ones are looked for
    ("slices", 2),  # in the middle of motion
    ("slices", 3),  # between two stages, before the mask changes
    ("volume", 1),  # where the diagonal of the normal matrix is known
    ("free", 1),  # among free Gaussians
    ("free", 2),  # before their geometry changes
    ("free", 3),  # just after the last
)


@pytest.fixture(scope="module")
def slices() -> Slices:
    return prepare_slices(moving_brain().stacks, OPTIONS)


@pytest.fixture(scope="module")
def saved() -> dict[tuple[str, int], Checkpoint]:
    """Checkpoints of `whole`."""
    return {}


@pytest.fixture(scope="module")
def whole(slices: Slices, saved: dict[tuple[str, int], Checkpoint]) -> Result:
    def save(progress: Progress) -> None:
        saved[progress.stage.name, progress.iteration] = progress.checkpoint()

    return reconstruct(slices, OPTIONS, save)


def parts_of(thing: object, name: str = "") -> dict[str, np.ndarray]:
    """Every array and every number in nested dataclasses, by name."""
    if isinstance(thing, tuple) and thing and hasattr(thing[0], "__dataclass_fields__"):
        return {k: v for number, part in enumerate(thing) for k, v in parts_of(part, f"{name}[{number}]").items()}
    if not hasattr(thing, "__dataclass_fields__"):
        return {name: np.asarray(thing)}
    return {k: v for f in fields(thing) for k, v in parts_of(getattr(thing, f.name), f"{name}.{f.name}").items()}  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment[0]}-{moment[1]}")
def test_the_rest_gives_the_same_result_to_the_bit(
    slices: Slices, whole: Result, saved: dict[tuple[str, int], Checkpoint], moment: tuple[str, int]
):
    assert isinstance(whole.field, GaussianField)
    heard: list[tuple[str, int]] = []
    result = reconstruct(slices, OPTIONS, lambda p: heard.append((p.stage.name, p.iteration)), checkpoint=saved[moment])
    moments = list(saved)
    assert heard == moments[moments.index(moment) + 1 :]  # what is done is not done again
    found, expected = parts_of(result), parts_of(whole)
    assert found.keys() == expected.keys()
    assert {".poses", ".gains", ".prediction", ".field.means", ".deviations[0].amplitudes"} <= found.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_a_checkpoint_outlives_what_comes_after_it(slices: Slices):
    """Nothing that the solver does later changes what was saved."""
    kept: list[tuple[Checkpoint, dict[str, np.ndarray]]] = []

    def save(progress: Progress) -> None:
        made = progress.checkpoint()
        kept.append((made, {name: values.copy() for name, values in parts_of(made).items()}))

    reconstruct(slices, OPTIONS, save)
    for made, before in kept:
        for name, values in parts_of(made).items():
            np.testing.assert_array_equal(values, before[name], err_msg=name)


def test_progress_goes_on_from_where_it_was(slices: Slices, whole: Result, saved: dict[tuple[str, int], Checkpoint]):
    heard: list[Progress] = []
    reconstruct(slices, OPTIONS, heard.append, checkpoint=saved["slices", 2])
    assert [progress.done for progress in heard] == [5, 6, 7, 8, 9, 10]
    assert {progress.total for progress in heard} == {10}
    assert [progress.stage_done for progress in heard] == [True, False, True, False, False, True]


def test_a_checkpoint_of_other_slices_or_options_is_refused(
    slices: Slices, whole: Result, saved: dict[tuple[str, int], Checkpoint]
):
    checkpoint = saved["slices", 2]
    fewer = slices.subset(np.arange(slices.n_slices) > 3)
    sizes = rf"^the checkpoint is of {slices.n_slices} slices with {len(slices.values)} pixels, not of these"
    with pytest.raises(ValueError, match=sizes):
        reconstruct(fewer, OPTIONS, checkpoint=checkpoint)
    others = replace(OPTIONS, stages=(STAGES[0], replace(STAGES[1], name="renamed"), *STAGES[2:]))
    with pytest.raises(ValueError, match=r"^the checkpoint is of the stage 'slices', which these options do not have$"):
        reconstruct(slices, others, checkpoint=checkpoint)
