"""``gsvr simulate``: stacks of a moving brain with known truth, for tests, benchmarks and a first try.

Defaults are those of `gsvr.simulation.simulate.SimulationOptions`; what is not given is not passed on.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gsvr.io.dicom.peers import Peer
    from gsvr.model.volume import Volume
    from gsvr.simulation.simulate import Simulation
    from gsvr.workflows.simulated_scanner import ScannerOptions

PHANTOM = "phantom"
# Repetition time written to the sidecars (s); only the order matters to a reconstruction.
_SECONDS_PER_SLICE = 1.5
_RECORD = "simulation.json"
# What the files are called (`_write`).
_NAMES = r"stack-\d+(_mask)?\.nii\.gz|stack-\d+\.json|truth(_mask)?\.nii\.gz|truth_poses\.json|simulation\.json"


def simulate_command(
    volume: Annotated[
        str,
        typer.Argument(metavar="VOLUME", help=f"NIfTI volume to image, zero outside the brain, or '{PHANTOM}'."),
    ],
    output_dir: Annotated[Path, typer.Option(help="Folder for stacks and truth; created if missing.")],
    mask: Annotated[Path | None, typer.Option(help="Brain mask of VOLUME. Default: above 5 % of its maximum.")] = None,
    n_stacks: Annotated[
        int | None,
        typer.Option(help="Stacks: axial, coronal, sagittal, then the same tilted. Default: 6."),
    ] = None,
    in_plane_spacing: Annotated[float | None, typer.Option(help="Pixel spacing (mm). Default: 1.1.")] = None,
    thickness: Annotated[float | None, typer.Option(help="Slice thickness (mm). Default: 3.0.")] = None,
    slice_spacing: Annotated[
        float | None, typer.Option(help="Distance between slice centres (mm). Default: the thickness.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Slice profile: slab or gaussian. Default: slab.")] = None,
    motion: Annotated[
        str | None,
        typer.Option(help="none, mild (1.5 mm), moderate (3.9), severe (8), uniform. Default: moderate."),
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Noise, as a share of the brightest tissue. Default: 0.03.")
    ] = None,
    gain: Annotated[
        float | None, typer.Option(help="Spread of the slices' gains. Default: by the level of motion.")
    ] = None,
    bias: Annotated[float | None, typer.Option(help="Spread of the coil's sensitivity. Default: 0.0.")] = None,
    signal_loss: Annotated[
        float | None, typer.Option(help="Share of darkened slices. Default: by the level of motion.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Source of all chance. Default: 0.")] = None,
    live: Annotated[
        str | None, typer.Option(help="Then play a scanner: send the stacks as DICOM to this node (AET@HOST:PORT).")
    ] = None,
    pace: Annotated[float, typer.Option(help="With --live: seconds a slice.")] = 1.0,
    repeat_stack: Annotated[int, typer.Option(help="With --live: acquire this stack (from 1) again in the end.")] = 0,
    lose_connection: Annotated[int, typer.Option(help="With --live: lose the connection in this stack (from 1).")] = 0,
) -> None:
    """Simulate stacks of slices of a moving brain, and write the truth beside them."""
    given = dict(locals())  # every option
    from rich.console import Console

    from gsvr.cli.progress import count_progress, log_to
    from gsvr.io.atomic import check_writable_folder
    from gsvr.io.outputs import OutputFolder, begin_writing, refuse_overwriting, sole_writer
    from gsvr.simulation.simulate import SimulationOptions, simulate

    log_to(Console(stderr=True), verbose=False)
    names = (option.name for option in fields(SimulationOptions))
    options = SimulationOptions(**{name: given[name] for name in names if given[name] is not None})
    check_writable_folder(output_dir)
    read = [] if volume == PHANTOM else [Path(volume), mask]
    refuse_overwriting([OutputFolder(output_dir, _NAMES)], read)
    peer, scanner = _scanner(live, pace, repeat_stack, lose_connection)
    if peer is not None and scanner is not None:
        _check_that_it_answers(peer, scanner)
    truth = _read_truth(volume, mask, options.seed)
    with count_progress(Console(stderr=True), "simulating slices") as progress:
        simulation = simulate(truth, options, progress)
    with sole_writer(output_dir / _RECORD):
        before = _files_before(output_dir)
        begin_writing([OutputFolder(output_dir, _NAMES)], output_dir / _RECORD)
        for path in before:
            path.unlink(missing_ok=True)
        written = _write(simulation, output_dir)
    OutputFolder(output_dir, _NAMES).warn_of_others(written)
    n_slices = sum(stack.n_slices for stack in simulation.stacks)
    typer.echo(
        f"{output_dir}: {len(simulation.stacks)} stacks, {n_slices} slices, "
        f"mean displacement {simulation.mean_displacement:.1f} mm"
    )
    if peer is not None:
        from gsvr.workflows.simulated_scanner import play

        with count_progress(Console(stderr=True), "sending series") as progress:
            sent = play(simulation.stacks, peer, scanner, progress)
        typer.echo(f"{sent} images were sent to {peer}")


def _scanner(
    live: str | None, pace: float, repeat_stack: int, lose_connection: int
) -> tuple[Peer | None, ScannerOptions | None]:
    """Where to send to, and how; checked before anything is simulated."""
    if live is None:
        return None, None
    from gsvr.io.dicom.installed import require
    from gsvr.io.dicom.peers import Peer
    from gsvr.workflows.simulated_scanner import ScannerOptions

    require("pynetdicom", "live")
    return Peer.parse(live), ScannerOptions(pace, repeat_stack, lose_connection)


def _check_that_it_answers(peer: Peer, scanner: ScannerOptions) -> None:
    """Before anything is simulated, which takes a while."""
    from gsvr.errors import InputError
    from gsvr.io.dicom.sender import SenderOptions, echo

    if not echo(peer, SenderOptions(scanner.title)):
        raise InputError(f"{peer} does not answer {scanner.title}: start it first, or make {scanner.title} known there")


def _read_truth(volume: str, mask: Path | None, seed: int) -> Volume:
    from gsvr.errors import InputError
    from gsvr.io.nifti import read_volume
    from gsvr.simulation.phantom import brain_phantom

    if volume != PHANTOM:
        return read_volume(volume, mask)
    if mask is not None:
        raise InputError(f"{mask}: the phantom has a mask of its own: leave out --mask")
    return brain_phantom(seed=seed)


def _files_before(folder: Path) -> list[Path]:
    """What an older run wrote, if its record says so: a stack too many would be taken for one of this run."""
    try:
        files = json.loads((folder / _RECORD).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [folder / name for name in files if isinstance(name, str) and re.fullmatch(_NAMES, name)]


def _write(simulation: Simulation, folder: Path) -> list[str]:
    """Write stacks with masks and sidecars, the truth, and last the record; the names of the files."""
    from gsvr.io.nifti import write_volume
    from gsvr.io.record import write_record
    from gsvr.io.transforms import SlicePose, write_poses_json

    names = ["truth.nii.gz", "truth_mask.nii.gz", "truth_poses.json", _RECORD]
    records = []
    for number, stack in enumerate(simulation.stacks):
        write_volume(folder / f"{stack.name}.nii.gz", stack.data, stack.affine)
        assert stack.mask is not None
        write_volume(folder / f"{stack.name}_mask.nii.gz", stack.mask, stack.affine)
        sidecar = {
            "SliceThickness": stack.thickness,
            "SpacingBetweenSlices": float(stack.spacing[2]),
            "SliceTiming": stack.slice_times * _SECONDS_PER_SLICE,
        }
        write_record(folder / f"{stack.name}.json", sidecar)
        names += [f"{stack.name}{end}" for end in (".nii.gz", "_mask.nii.gz", ".json")]
        for index, pose in enumerate(simulation.poses[number]):
            details: dict[str, float | bool | str] = {
                "gain": float(simulation.gains[number][index]),
                "signal_kept": float(simulation.signal_losses[number][index]),
            }
            records.append(SlicePose(stack.name, index, pose, details))
    volume = simulation.volume
    assert volume.mask is not None
    write_volume(folder / "truth.nii.gz", volume.data, volume.affine)
    write_volume(folder / "truth_mask.nii.gz", volume.mask, volume.affine)
    write_poses_json(folder / "truth_poses.json", records)
    measured = {"mean_displacement": simulation.mean_displacement, "noise_sigma": simulation.noise_sigma}
    write_record(folder / _RECORD, {"options": simulation.options} | measured | {"files": sorted(names)})
    return names
