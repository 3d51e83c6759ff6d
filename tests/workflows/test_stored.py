from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gsvr.errors import InputError
from gsvr.io.record import read_record
from gsvr.operators.any_field import predicted
from gsvr.report.page import report_page
from gsvr.report.slice_gallery import slice_cards
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.outputs import OutputPaths, write_outputs
from gsvr.workflows.pipeline import Reconstruction, StackInputs, prepare, run
from gsvr.workflows.provenance import file_hash
from gsvr.workflows.stored import stored_examination
from tests.moving_brain import SHORTEST_STAGES, moving_brain
from tests.stack_files import write_simulation


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reconstruction, list[Path]]:
    """Record, what it is of, and the stacks."""
    folder = tmp_path_factory.mktemp("finished")
    stacks = write_simulation(folder / "stacks", moving_brain())
    masks = [path.with_name(path.name.replace(".nii.gz", "_mask.nii.gz")) for path in stacks]
    job = prepare(StackInputs(stacks, masks), SolverOptions(stages=SHORTEST_STAGES), fit_stages=False)
    reconstruction = run(job, 1.5)
    paths = OutputPaths.beside(folder / "out" / "brain.nii.gz", report=folder / "out" / "first.html")
    write_outputs(reconstruction, paths, {"input_stacks": stacks})
    return paths.record, reconstruction, stacks


def test_slices_are_predicted_anew_as_they_were(finished) -> None:
    record, reconstruction, stacks = finished
    acquisition = stored_examination(record, stacks).acquisition
    assert acquisition is not None
    slices, result = acquisition.slices, reconstruction.result
    whole = predicted(result.field, result.slices, result.poses, result.gains, result.profile)
    if result.bias is not None:
        whole *= result.bias.at(result.slices)
    compared = 0
    for number in range(result.slices.n_slices):
        used = result.slices.image(number, result.slices.mask)
        key = (result.slices.stack_names[result.slices.stack_index[number]], int(result.slices.slice_index[number]))
        if used.sum() < 50:
            continue
        again = acquisition.place[key]
        # where the first pixel of the run's rectangle is in that of the page
        between = np.linalg.solve(slices.frames[again], result.slices.frames[number])[:2, 3] / slices.spacings[again]
        first = np.round(between).astype(int)
        assert np.allclose(first, between, atol=1e-6)
        part = tuple(slice(max(a, 0), a + n) for a, n in zip(first, used.shape, strict=True))
        own = tuple(slice(max(-a, 0), None) for a in first)
        stored = slices.image(again, acquisition.prediction)[part]
        before = result.slices.image(number, whole)[own][: stored.shape[0], : stored.shape[1]]
        inside = used[own][: stored.shape[0], : stored.shape[1]]
        assert inside.sum() > 0.95 * used.sum()
        scale = np.abs(result.prediction).max()
        assert np.abs(stored - before)[inside].max() < 1e-3 * scale
        compared += 1
    assert compared > 20


def test_the_page_shows_the_same_slices(finished) -> None:
    record, _, stacks = finished
    examination = stored_examination(record, stacks)
    shown = [card for card in slice_cards(examination) if card.image is not None]
    assert len(shown) == sum(bool(pose.details["used"]) for pose in examination.slices)
    first = (record.parent / "first.html").read_text(encoding="utf-8")
    assert report_page(examination).count('class="card') == first.count('class="card')


def test_the_page_says_what_was_read(finished) -> None:
    record, _, stacks = finished
    page = report_page(stored_examination(record))
    for path in stacks:
        assert file_hash(path) in page
    content = read_record(record)
    assert content["run_hash"] in page
    assert content["date"].replace("T", " ") in page


def test_stacks_elsewhere_are_left_out_or_found_where_told(finished, tmp_path: Path) -> None:
    record, _, stacks = finished
    for path in record.parent.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    moved = tmp_path / record.name
    assert stored_examination(moved).acquisition is None
    assert stored_examination(moved, stacks[::-1]).acquisition is not None
    with pytest.raises(InputError, match="is none of the `input_stacks`"):
        stored_examination(moved, [tmp_path / "other.nii.gz"])
    for path in stacks:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert stored_examination(moved).acquisition is not None
    (tmp_path / stacks[0].name).write_bytes(stacks[1].read_bytes())
    assert stored_examination(moved).acquisition is None
    with pytest.raises(InputError, match="is another file than that of"):
        stored_examination(moved, [tmp_path / stacks[0].name, *stacks[1:]])


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        stored_examination(tmp_path / "none.json")
    for text, words in (("{", "is not readable JSON"), ("[]", "is no record"), ('{"format": "x"}', "is no record")):
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=words):
            stored_examination(tmp_path / "a.json")
    (tmp_path / "a.nii.gz").write_bytes(bytes([0x1F, 0x8B, 8]))
    with pytest.raises(InputError, match="is no record of a run: give the one"):
        stored_examination(tmp_path / "a.nii.gz")
    (tmp_path / "a.json").write_text(
        '{"format": "gsvr-record", "outputs": {"volume": "b.nii.gz"}, "stacks": []}', encoding="utf-8"
    )
    with pytest.raises(InputError, match=r"the volume of .* is not beside it"):
        stored_examination(tmp_path / "a.json")
