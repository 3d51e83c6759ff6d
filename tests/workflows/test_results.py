from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import gsvr
from gsvr.errors import InputError
from gsvr.solver.schedule import SolverOptions
from tests.moving_brain import SHORTEST_STAGES, moving_brain

OPTIONS = SolverOptions(stages=SHORTEST_STAGES)


@pytest.fixture(scope="module")
def stopped() -> tuple[gsvr.Slices, gsvr.Result, list[gsvr.Progress]]:
    """A reconstruction that its callback has ended early, after its first stage."""
    slices = gsvr.slices_from_stacks(moving_brain().stacks)
    heard: list[gsvr.Progress] = []

    def enough(progress: gsvr.Progress) -> None:
        heard.append(progress)
        if progress.stage_done:
            raise gsvr.StopReconstruction

    return slices, gsvr.reconstruct(slices, OPTIONS, enough), heard


def test_what_a_callback_stops_is_kept(stopped) -> None:
    slices, result, heard = stopped
    assert heard[-1].done < heard[-1].total
    assert [progress.stage for progress in heard] == [SHORTEST_STAGES[0]] * len(heard)
    np.testing.assert_array_equal(result.poses, heard[-1].state.poses)
    assert result.prediction.shape == slices.values.shape
    unexplained = (slices.values - result.prediction)[result.slices.mask]
    assert unexplained.std() < slices.values[slices.mask].std()


def test_other_exceptions_of_a_callback_pass() -> None:
    def broken(_: gsvr.Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gsvr.reconstruct(gsvr.slices_from_stacks(moving_brain().stacks), OPTIONS, broken)


def test_the_published_settings_keep_what_there_is_as_well() -> None:
    pytest.importorskip("torch")
    slices = gsvr.slices_from_stacks(moving_brain().stacks).binned(2)
    options = gsvr.PublishedOptions(n_gaussians=500, epochs=40)
    heard: list[gsvr.Progress] = []

    def two(progress: gsvr.Progress) -> None:
        heard.append(progress)
        if len(heard) == 2:
            raise gsvr.StopReconstruction

    result = gsvr.reconstruct_as_published(slices, options, two)
    assert len(heard) == 2
    assert np.isfinite(result.field.amplitudes).all()


def test_a_result_in_memory_is_written_in_one_call(stopped, tmp_path: Path) -> None:
    _, result, _ = stopped
    done = gsvr.write_result(tmp_path / "a" / "v.nii.gz", result, OPTIONS, output_resolution=2.0, slices=tmp_path / "s")
    names = ("v.nii.gz", "v_mask.nii.gz", "v.png", "v.json", "v_poses.json", "v_field.safetensors", "v_transforms")
    assert {path.name for path in (tmp_path / "a").iterdir()} == set(names)
    assert len(list((tmp_path / "s").iterdir())) == 2 * result.slices.n_slices + 1
    record = json.loads((tmp_path / "a" / "v.json").read_text(encoding="utf-8"))
    assert record["verdict"]["grade"] == done.verdict.grade
    assert (record["run_hash"], record["inputs"], record["command"]) == (None, [], None)
    volume = gsvr.read_volume(tmp_path / "a" / "v.nii.gz")
    np.testing.assert_array_equal(volume.data, done.volume.data)


@pytest.mark.parametrize("with_stacks", [False, True])
def test_a_report_shows_what_is_known(stopped, tmp_path: Path, with_stacks: bool) -> None:
    stacks = moving_brain().stacks if with_stacks else []
    gsvr.write_result(
        tmp_path / "v.nii.gz", stopped[1], OPTIONS, stacks, output_resolution=2.0, report=tmp_path / "v.html"
    )
    page = (tmp_path / "v.html").read_text(encoding="utf-8")
    assert page.count('class="card') > 10
    assert ("Before and after" in page) == with_stacks
    record = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    assert len(record["stacks"]) == len(stacks)


def test_what_cannot_be_written_is_said_at_once(stopped, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.nii"):
        gsvr.write_result(tmp_path / "v.mgz", stopped[1])
    with pytest.raises(TypeError):
        gsvr.write_result(tmp_path / "v.nii", stopped[1], banana=tmp_path / "b")
    with pytest.raises(TypeError, match="masks of stacks"):
        gsvr.write_result(tmp_path / "v.nii", stopped[1], stack_masks=tmp_path / "b")
    assert list(tmp_path.iterdir()) == []
