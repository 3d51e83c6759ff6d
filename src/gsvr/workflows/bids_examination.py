"""One session of a BIDS dataset, reconstructed into a derivative dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from gsvr.errors import InputError
from gsvr.evaluation.verdict import Grade, Verdict
from gsvr.io.bids import BidsRun, BidsSession
from gsvr.io.bids_derivative import write_sidecars
from gsvr.io.bids_names import parse_name
from gsvr.io.outputs import begin_writing, sole_writer
from gsvr.io.record import read_record, to_plain
from gsvr.render import VOXEL_SIZE
from gsvr.solver.published import PublishedOptions
from gsvr.solver.reconstruct import Callback
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.inputs import StackInputs
from gsvr.workflows.orientation import Orientation, Space
from gsvr.workflows.outputs import UNCERTAINTY_SAMPLES, OutputPaths, write_outputs
from gsvr.workflows.pipeline import prepare, run
from gsvr.workflows.presets import chosen_options
from gsvr.workflows.provenance import run_hash


@dataclass(frozen=True)
class ReconstructionSettings:
    """How every session is reconstructed; see the options of ``gsvr reconstruct``.

    Attributes
    ----------
    output_resolution
        Voxel size (mm).
    uncertainty
        Also the standard deviation of every voxel.
    find_masks
        Find the brain automatically and use no masks of the dataset.
    orientation, orientation_template
        The world of the volumes, see `gsvr.workflows.orientation.Orientation`.
    """

    output_resolution: float = VOXEL_SIZE
    slice_order: str = "auto"
    preset: str = "default"
    motion: str = "slices"
    profile: str | None = None
    device: str = "auto"
    seed: int = 0
    uncertainty: bool = False
    find_masks: bool = False
    orientation: str = "scanner"
    orientation_template: str | None = None

    @property
    def oriented(self) -> Orientation:
        """The world of the volumes.

        Raises
        ------
        InputError
            If there is no such space, or a template without need.
        """
        template = self.orientation_template
        return Orientation(cast(Space, self.orientation), None if template is None else Path(template))

    @property
    def options(self) -> SolverOptions | PublishedOptions:
        """What they mean for the solver.

        Raises
        ------
        InputError
            For a word that is none of the choices, or a combination that does not exist.
        """
        samples = UNCERTAINTY_SAMPLES if self.uncertainty else 0
        options = chosen_options(self.preset, self.profile, self.device, self.seed, samples, self.motion)
        return replace(options, masks=replace(options.masks, automatic="always")) if self.find_masks else options


@dataclass(frozen=True)
class BidsExamination:
    """What is to be reconstructed, from where to where, and how.

    Attributes
    ----------
    source
        Folder of the BIDS dataset.
    output
        Folder of the derivative dataset.
    session
        What was found in it.
    settings
        How.
    """

    source: Path
    output: Path
    session: BidsSession
    settings: ReconstructionSettings = ReconstructionSettings()

    @property
    def name(self) -> str:
        """Of the session."""
        return self.session.name

    @property
    def paths(self) -> OutputPaths:
        """Where everything goes."""
        stem, folder = f"{self.name}_rec-gsvr", self.output / self.session.folder
        anat, subject = folder / "anat", f"sub-{self.session.subject}"
        return OutputPaths(
            volume=anat / f"{stem}_T2w.nii.gz",
            mask=anat / f"{stem}_desc-brain_mask.nii.gz",
            poses=anat / f"{stem}_poses.json",
            transforms=folder / "xfm",
            model=anat / f"{stem}_field.safetensors",
            record=anat / f"{stem}_record.json",
            picture=self.output / subject / "figures" / f"{stem}_T2w.png",
            uncertainty=self._uncertainty if self.settings.uncertainty else None,
            report=self.output / f"{self.name}.html",
            orientation=None if self.settings.oriented.space == "scanner" else self._orientation,
            transform_name="{stem}_from-gsvr_to-slice{index:03d}_mode-image_xfm.tfm",
        )

    @property
    def _uncertainty(self) -> Path:
        return self.output / self.session.folder / "anat" / f"{self.name}_rec-gsvr_desc-uncertainty_T2w.nii.gz"

    @property
    def _orientation(self) -> Path:
        name = f"{self.name}_rec-gsvr_from-gsvr_to-scanner_mode-image_xfm.tfm"
        return self.output / self.session.folder / "xfm" / name

    @property
    def stacks(self) -> list[Path]:
        """Files of the runs."""
        return [run.path for run in self.session.runs]

    @property
    def masks(self) -> list[Path | None]:
        """One or None a run."""
        return [None if self.settings.find_masks else run.mask for run in self.session.runs]

    @property
    def inputs(self) -> StackInputs:
        """What is read."""
        masks = self.masks if any(self.masks) else None
        return StackInputs(self.stacks, masks, slice_order=self.settings.slice_order)

    def is_done(self) -> bool:
        """Whether all of it is there, made of the same files with the same options by the same version.

        The record is written last: where it is, everything was whole; what has been removed since is missed.

        Raises
        ------
        InputError
            If a file of the input cannot be read.
        """
        try:
            told = read_record(self.paths.record).get("run_hash")
        except InputError:
            return False
        files = [path for path in self.paths.written if isinstance(path, Path)]
        return all(map(os.path.isfile, files)) and told == run_hash(
            *(self.inputs, self.settings.options, self.settings.output_resolution),
            orientation=self.settings.oriented,
        )

    def verdict(self) -> tuple[Grade, str]:
        """The grade of a session that is done, and all of the verdict in one sentence."""
        verdict = read_record(self.paths.record)["verdict"]
        return verdict["grade"], f"{verdict['grade']}: {'; '.join((*verdict['reasons'], *verdict['advice']))}"

    def to_json(self) -> dict[str, Any]:
        """In plain JSON, for another process."""
        runs = [
            [str(run.path.absolute()), None if run.mask is None else str(run.mask.absolute())]
            for run in self.session.runs
        ]
        template = self.settings.oriented.template
        return {
            "source": str(self.source.absolute()),
            "output": str(self.output.absolute()),
            "subject": self.session.subject,
            "session": self.session.session,
            "runs": runs,
            "settings": to_plain(self.settings)
            | {"orientation_template": None if template is None else str(template.absolute())},
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> BidsExamination:
        """What `to_json` made."""
        runs = []
        for path, mask in content["runs"]:
            name = parse_name(Path(path).name)
            assert name is not None
            runs.append(BidsRun(Path(path), name, None if mask is None else Path(mask)))
        return BidsExamination(
            Path(content["source"]),
            Path(content["output"]),
            BidsSession(content["subject"], content["session"], tuple(runs)),
            ReconstructionSettings(**content["settings"]),
        )


def reconstruct_examination(
    examination: BidsExamination,
    callback: Callback | None = None,
    wait: float = 0.0,
    command: str | None = None,
) -> Verdict | None:
    """Reconstruct a session and write everything; None if that is done already.

    Parameters
    ----------
    callback
        Told of every outer iteration.
    wait
        Seconds to wait for another process that is at work on the same session.
    command
        The command line, for the record.

    Raises
    ------
    InputError
        If the input cannot be used, or another process writes the same files.
    """
    paths, settings, inputs = examination.paths, examination.settings, examination.inputs
    options = settings.options
    paths.check(inputs.stacks, [*inputs.masks, settings.oriented.template])
    with sole_writer(paths.volume, wait):
        if examination.is_done():
            return None
        job = prepare(inputs, options, orientation=settings.oriented)
        reconstruction = run(job, settings.output_resolution, callback)
        begin_writing(paths.written, paths.record)
        _remove_outputs_of_other_settings(examination)
        write_sidecars(
            *(examination.output, paths.volume, paths.mask, paths.uncertainty),
            *(examination.source, examination.session),
        )
        write_outputs(reconstruction, paths, _recorded(examination), command)
    return reconstruction.verdict


def _remove_outputs_of_other_settings(examination: BidsExamination) -> None:
    """Transforms of slices that are no longer there, and an uncertainty that belongs to another volume."""
    for path in examination.paths.transform_folder.existing():
        path.unlink(missing_ok=True)
    if examination.settings.oriented.space == "scanner":
        examination._orientation.unlink(missing_ok=True)
    if not examination.settings.uncertainty:
        uncertainty = examination._uncertainty
        for path in (uncertainty, uncertainty.with_name(uncertainty.name.removesuffix(".nii.gz") + ".json")):
            path.unlink(missing_ok=True)


def _recorded(examination: BidsExamination) -> dict[str, Any]:
    """Settings as the record holds them; files of the dataset around it as they are seen from its folder."""
    template = examination.settings.oriented.template
    return {
        "input_stacks": [_told(examination, path) for path in examination.stacks],
        "stack_masks": [None if mask is None else _told(examination, mask) for mask in examination.masks],
        **to_plain(examination.settings),
        "orientation_template": None if template is None else template.name,
    }


def _told(examination: BidsExamination, path: Path) -> str:
    """Folders of the dataset are part of BIDS; of others only the name is told."""
    inside = examination.output.resolve().is_relative_to(examination.source.resolve())
    return os.path.relpath(path, examination.paths.record.parent) if inside else path.name
