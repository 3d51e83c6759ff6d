"""What every option of every command hands to the library, each with another value than its default."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer.main

from gsvr.backends.devices import Device
from gsvr.cli import app
from gsvr.io.dicom.peers import Peer
from gsvr.io.field import write_field
from gsvr.masks.first import StackMasks
from gsvr.model.fields import LatticeField
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume
from gsvr.solver.schedule import default_stages
from gsvr.workflows.dicom_to_bids import BidsConversion
from gsvr.workflows.outputs import UNCERTAINTY_SAMPLES
from tests.acquisitions import random_amplitudes, small_lattice
from tests.cli.conftest import Command

COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
# What each command calls in the end, and what takes its place; None: it is called as it is, too.
STAND_INS: dict[str, dict[str, Callable[..., Any] | None]] = {
    "reconstruct": {
        "gsvr.backends.devices.choose_device": lambda name: Device(name, "pretended"),
        "gsvr.cli.progress.log_to": lambda *_: None,
        "gsvr.workflows.pipeline.prepare": lambda *_, **__: None,
        "gsvr.workflows.pipeline.run": lambda *_: SimpleNamespace(verdict=SimpleNamespace(grade="good")),
        "gsvr.workflows.outputs.write_outputs": lambda *_: None,
        "gsvr.io.outputs.earlier_outputs": None,
        "gsvr.io.slice_folder.files_of_slices": lambda *_: [],
        "gsvr.cli.reconstruct._summarise": lambda *_: None,
    },
    "dicom2bids": {
        "gsvr.cli.progress.log_to": lambda *_: None,
        "gsvr.workflows.dicom_to_bids.dicom_to_bids": lambda *_: BidsConversion(),
    },
    "mask": {
        "gsvr.cli.progress.log_to": lambda *_: None,
        "gsvr.workflows.inputs.read_acquired": lambda inputs: [
            Stack(path.stem, MASK.astype(np.float32), np.eye(4), 1.0, None) for path in inputs.stacks
        ],
        "gsvr.io.outputs.earlier_outputs": None,
        "gsvr.workflows.stack_masks.masks_to_start_with": lambda stacks, *_, **__: StackMasks(
            [MASK], [MASK], [True], [True]
        ),
        "gsvr.workflows.outputs.write_stack_masks": lambda folder, stacks, _: [folder / s.name for s in stacks],
        "gsvr.report.picture.save_mid_slices": lambda *_: None,
    },
    "render": {"gsvr.render.volume.render_volume": None, "gsvr.io.nifti.write_volume": None},
    "plane": {
        "gsvr.render.plane.plane_frame": None,
        "gsvr.render.plane.render_plane": None,
        "gsvr.io.nifti.write_volume": None,
    },
    "evaluate": {
        "gsvr.cli.progress.log_to": lambda *_: None,
        "gsvr.cli.evaluate_truth.evaluate_truth": lambda *_: ({}, []),
        "gsvr.cli.evaluate_holdout.evaluate_holdout": lambda *_: ({}, []),
        "gsvr.io.record.write_record": lambda *_: None,
    },
    "simulate": {
        "gsvr.io.nifti.read_volume": lambda *_: None,
        "gsvr.simulation.simulate.simulate": lambda *_: SimpleNamespace(stacks=[], mean_displacement=0.0),
        "gsvr.cli.simulate._write": lambda *_: [],
        "gsvr.workflows.simulated_scanner.play": lambda *_: 0,
        "gsvr.io.dicom.sender.echo": lambda *_: True,
    },
    "bids": {
        "gsvr.workflows.bids_app.plan_examinations": lambda *_: [],
        "gsvr.workflows.bids_app.reconstruct_sessions": lambda *_: [],
        "gsvr.workflows.this_machine.ThisMachine": None,
        "gsvr.workflows.cluster.ClusterOptions": None,
        "gsvr.cli.progress.log_to": lambda *_: None,
    },
    "live": {
        "gsvr.backends.devices.choose_device": lambda name: Device(name, "pretended"),
        "gsvr.cli.progress.log_to": lambda *_: None,
        "gsvr.cli.live._dicom_node": lambda *_: SimpleNamespace(start=print, stop=print),
        "gsvr.workflows.live.watched_folder.WatchedFolder": lambda *_: SimpleNamespace(start=print, stop=print),
        "gsvr.workflows.live.mrd_server.MrdServer": lambda *_: SimpleNamespace(start=print, stop=print),
        "gsvr.cli.live._returner": lambda *_: SimpleNamespace(start=print, stop=lambda last_attempt: None),
        "gsvr.workflows.live.node.LiveNode.run": lambda *_: None,
        "gsvr.workflows.live.server.PageServer": lambda *_: SimpleNamespace(
            start=lambda: None, stop=lambda: None, address=""
        ),
    },
    "send": {
        "gsvr.io.dicom.sender.send": lambda *_: 1,
        "gsvr.workflows.live.returning.instances_of": lambda *_: [],
    },
    "report": {
        "gsvr.workflows.stored.stored_examination": lambda *_: SimpleNamespace(acquisition=None),
        "gsvr.report.page.write_report": lambda *_: None,
    },
    "view": {
        "gsvr.io.nifti.read_volume": lambda path, *_: Volume(MASK.astype(np.float32), np.eye(4)),
        "gsvr.render.volume.render_volume": None,
        "gsvr.report.page.write_view": lambda *_: None,
        "webbrowser.open": lambda *_: True,
    },
}
MASK = np.ones((2, 3, 4), bool)
TRUTH, STACKS = "v.nii --truth t.nii", "--input-stacks a.nii b.nii c.nii"


@dataclass(frozen=True)
class Case:
    """An option with its value, and what is found where.

    Attributes
    ----------
    words
        The option and what else the command needs.
    expected
        Function and argument (and what is in it) -> value.
    """

    words: str
    expected: dict[str, Any]


def file_case(option: str, name: str, place: str, base: str = "") -> Case:
    return Case(f"{base} {option} {name}", {place: Path(name)})


CASES: dict[str, dict[str, Case]] = {
    "reconstruct": {
        "input_stacks": Case(
            "--input-stacks a.nii", {"prepare.inputs.stacks": [Path("c.nii"), Path("d.nii"), Path("a.nii")]}
        ),
        "input_slices": file_case("--input-slices", "s", "prepare.inputs.slice_folder"),
        "input_dicom": Case("--input-dicom a b", {"prepare.inputs.dicom": [Path("a"), Path("b")]}),
        "dicom_series": Case("--dicom-series 3 5", {"prepare.inputs.dicom_series": [3, 5]}),
        "output_volume": file_case("--output-volume", "w.nii", "write_outputs.paths.volume"),
        "stack_masks": Case("--stack-masks m.nii n.nii", {"prepare.inputs.masks": [Path("m.nii"), Path("n.nii")]}),
        "output_stack_masks": file_case("--output-stack-masks", "o/m", "write_outputs.paths.stack_masks"),
        "thicknesses": Case("--thicknesses 2.5 4", {"prepare.inputs.thicknesses": [2.5, 4.0]}),
        "output_resolution": Case("--output-resolution 0.7", {"run.output_resolution": 0.7}),
        "slice_order": Case("--slice-order descending", {"prepare.inputs.slice_order": "descending"}),
        "orientation": Case("--orientation anatomical", {"prepare.orientation.space": "anatomical"}),
        "orientation_template": file_case(
            "--orientation anatomical --orientation-template", "t.nii", "prepare.orientation.template"
        ),
        "preset": Case("--preset fast", {"prepare.options.stages": list(default_stages(free=False))}),
        "motion": Case("--motion none", {"prepare.options.stages": list(default_stages(motion="none"))}),
        "initial_poses": file_case("--initial-poses", "p.json", "prepare.inputs.poses"),
        "bias_field": Case("--bias-field off", {"prepare.options.bias": None}),
        "trust_headers": Case("--trust-headers", {"prepare.options.search": "none"}),
        "profile": Case("--profile slab-gaussian", {"prepare.options.profile": "slab-gaussian"}),
        "output_mask": file_case("--output-mask", "o/m.nii", "write_outputs.paths.mask"),
        "output_poses": file_case("--output-poses", "o/p.json", "write_outputs.paths.poses"),
        "output_transforms": file_case("--output-transforms", "o/t", "write_outputs.paths.transforms"),
        "output_model": file_case("--output-model", "o/f.safetensors", "write_outputs.paths.model"),
        "output_json": file_case("--output-json", "o/r.json", "write_outputs.paths.record"),
        "output_picture": file_case("--output-picture", "o/p.png", "write_outputs.paths.picture"),
        "output_report": file_case("--output-report", "o/r.html", "write_outputs.paths.report"),
        "output_dicom": file_case("--output-dicom", "o/d", "write_outputs.paths.dicom"),
        "dicom_patient": Case(
            "--input-dicom a --output-dicom o/d --dicom-patient", {"prepare.inputs.dicom_patient": True}
        ),
        "output_slices": file_case("--output-slices", "o/s", "write_outputs.paths.slices"),
        "simulated_slices": file_case("--simulated-slices", "o/s", "write_outputs.paths.simulated_slices"),
        "output_uncertainty": Case(
            "--output-uncertainty o/u.nii",
            {
                "write_outputs.paths.uncertainty": Path("o/u.nii"),
                "prepare.options.uncertainty_samples": UNCERTAINTY_SAMPLES,
            },
        ),
        "device": Case("--device cuda:1", {"prepare.options.backend": "cuda:1"}),
        "seed": Case("--seed 7", {"prepare.options.seed": 7}),
        "no_overwrite": Case("--no-overwrite", {"earlier_outputs.refuse": True}),
        "verbose": Case("--verbose", {"log_to.verbose": True}),
    },
    "dicom2bids": {
        "subject": Case("--subject A1", {"dicom_to_bids.options.subject": "A1"}),
        "session": Case("--session B2", {"dicom_to_bids.options.session": "B2"}),
        "series": Case("--series 3 5", {"dicom_to_bids.options.series": [3, 5]}),
        "dry_run": Case("--dry-run", {"dicom_to_bids.options.dry_run": True}),
        "verbose": Case("--verbose", {"log_to.verbose": True}),
    },
    "mask": {
        "input_dicom": Case("--input-dicom d e", {"read_acquired.inputs.dicom": [Path("d"), Path("e")]}),
        "dicom_series": Case("--input-dicom d --dicom-series 3 5", {"read_acquired.inputs.dicom_series": [3, 5]}),
        "no_overwrite": Case("--no-overwrite", {"earlier_outputs.refuse": True}),
        "output_dir": file_case("--output-dir", "other", "write_stack_masks.folder"),
        "output_picture": file_case("--output-picture", "p.png", "save_mid_slices.path"),
        "verbose": Case("--verbose", {"log_to.verbose": True}),
    },
    "bids": {
        "participant_label": Case(
            "--participant-label 01 sub-02", {"plan_examinations.selection.participants": ["01", "02"]}
        ),
        "session_label": Case("--session-label a", {"plan_examinations.selection.sessions": ["a"]}),
        "acquisition_label": Case("--acquisition-label x", {"plan_examinations.selection.acquisitions": ["x"]}),
        "derivatives": Case("--derivatives d e", {"plan_examinations.derivatives": [Path("d"), Path("e")]}),
        "find_masks": Case("--find-masks", {"plan_examinations.settings.find_masks": True}),
        "output_resolution": Case("--output-resolution 0.7", {"plan_examinations.settings.output_resolution": 0.7}),
        "slice_order": Case("--slice-order descending", {"plan_examinations.settings.slice_order": "descending"}),
        "preset": Case("--preset fast", {"plan_examinations.settings.preset": "fast"}),
        "motion": Case("--motion none", {"plan_examinations.settings.motion": "none"}),
        "profile": Case("--profile gaussian", {"plan_examinations.settings.profile": "gaussian"}),
        "uncertainty": Case("--uncertainty", {"plan_examinations.settings.uncertainty": True}),
        "device": Case("--device cuda:1", {"plan_examinations.settings.device": "cuda:1"}),
        "seed": Case("--seed 7", {"plan_examinations.settings.seed": 7}),
        "orientation": Case("--orientation anatomical", {"plan_examinations.settings.orientation": "anatomical"}),
        "orientation_template": Case(
            "--orientation anatomical --orientation-template t.nii",
            {"plan_examinations.settings.orientation_template": "t.nii"},
        ),
        "n_procs": Case("--n-procs 3", {"ThisMachine.at_once": 3}),
        "memory": Case("--memory 2.5", {"ThisMachine.memory": 2_500_000_000}),
        "time_limit": Case("--time-limit 3", {"reconstruct_sessions.options.seconds": 180.0}),
        "cluster": Case("--cluster tcp://here:1", {"ClusterOptions.kind": "tcp://here:1"}),
        "cluster_options": Case(
            "--cluster local --cluster-options queue=a walltime=b=c",
            {"ClusterOptions.more": {"queue": "a", "walltime": "b=c"}},
        ),
        "work_dir": file_case("--work-dir", "w", "reconstruct_sessions.logs"),
        "skip_bids_validation": Case("--skip-bids-validation", {"plan_examinations.validate": False}),
        "verbose": Case("--verbose", {"log_to.verbose": True}),
    },
    "render": {
        "output_volume": file_case("--output-volume", "w.nii", "write_volume.path"),
        "output_resolution": Case("--output-resolution 3", {"render_volume.spacing": 3.0}),
        "output_mask": file_case("--output-mask", "m.nii", "write_volume.path"),
    },
    "plane": {
        "output_image": file_case("--output-image", "q.nii", "write_volume.path"),
        "centre": Case("--centre 1 -2 0.5", {"plane_frame.centre": [1, -2, 0.5]}),
        "normal": Case("--normal -0.3 0.2 1", {"plane_frame.normal": [-0.3, 0.2, 1]}),
        "size": Case("--size 6 7", {"plane_frame.shape": [6, 7], "render_plane.shape": [6, 7]}),
        "spacing": Case("--spacing 0.7", {"plane_frame.spacing": [0.7, 0.7], "render_plane.spacing": [0.7, 0.7]}),
        "thickness": Case("--thickness 2.5", {"render_plane.thickness": 2.5}),
        "profile": Case("--profile gaussian --thickness 2", {"render_plane.profile": "gaussian"}),
    },
    "evaluate": {
        "truth": file_case("--truth", "u.nii", "evaluate_truth.truth", TRUTH),
        "truth_mask": file_case("--truth-mask", "m.nii", "evaluate_truth.truth_mask", TRUTH),
        "poses": file_case("--poses", "p.json", "evaluate_truth.poses", f"{TRUTH} --true-poses q.json"),
        "true_poses": file_case("--true-poses", "q.json", "evaluate_truth.true_poses", f"{TRUTH} --poses p"),
        "align": Case(f"{TRUTH} --no-align", {"evaluate_truth.align": False}),
        "output_json": file_case("--output-json", "s.json", "write_record.path", TRUTH),
        "output_picture": Case(f"{TRUTH} --output-picture p.png", {"evaluate_truth.picture": Path("p.png")}),
        "input_stacks": Case(STACKS, {"evaluate_holdout.inputs.stacks": [Path(f"{k}.nii") for k in "abc"]}),
        "input_dicom": Case("--input-dicom d", {"evaluate_holdout.inputs.dicom": [Path("d")]}),
        "dicom_series": Case("--input-dicom d --dicom-series 3", {"evaluate_holdout.inputs.dicom_series": [3]}),
        "stack_masks": Case(f"{STACKS} --stack-masks m.nii", {"evaluate_holdout.inputs.masks": [Path("m.nii")]}),
        "thicknesses": Case(f"{STACKS} --thicknesses 2.5", {"evaluate_holdout.inputs.thicknesses": [2.5]}),
        "slice_order": Case(f"{STACKS} --slice-order ascending", {"evaluate_holdout.inputs.slice_order": "ascending"}),
        "verbose": Case(f"{TRUTH} -v", {"log_to.verbose": True}),
    },
    "simulate": {
        "output_dir": file_case("--output-dir", "other", "_write.folder"),
        "mask": file_case("--mask", "m.nii", "read_volume.mask_path"),
        "n_stacks": Case("--n-stacks 4", {"simulate.options.n_stacks": 4}),
        "in_plane_spacing": Case("--in-plane-spacing 1.7", {"simulate.options.in_plane_spacing": 1.7}),
        "thickness": Case("--thickness 2.2", {"simulate.options.thickness": 2.2}),
        "slice_spacing": Case("--slice-spacing 3.3", {"simulate.options.slice_spacing": 3.3}),
        "profile": Case("--profile gaussian", {"simulate.options.profile": "gaussian"}),
        "motion": Case("--motion severe", {"simulate.options.motion": "severe"}),
        "noise": Case("--noise 0.11", {"simulate.options.noise": 0.11}),
        "gain": Case("--gain 0.12", {"simulate.options.gain": 0.12}),
        "bias": Case("--bias 0.13", {"simulate.options.bias": 0.13}),
        "signal_loss": Case("--signal-loss 0.14", {"simulate.options.signal_loss": 0.14}),
        "seed": Case("--seed 7", {"simulate.options.seed": 7}),
        "live": Case("--live A@host:11", {"play.peer": Peer("A", "host", 11)}),
        "pace": Case("--pace 0.5", {"play.options.pace": 0.5}),
        "repeat_stack": Case("--repeat-stack 2", {"play.options.repeated": 2}),
        "lose_connection": Case("--lose-connection 3", {"play.options.lost": 3}),
    },
    "live": {
        "output_dir": Case("--output-dir other", {"run.self._output_dir": Path("other")}),
        "watch": Case("--watch new", {"WatchedFolder.folder": Path("new")}),
        "dicom_port": Case("--dicom-port 11", {"_dicom_node.port": 11}),
        "ae_title": Case("--ae-title T", {"_dicom_node.title": "T"}),
        "allow_peer": Case("--allow-peer A@b", {"_dicom_node.peers": ["A@b"]}),
        "mrd_port": Case("--mrd-port 13", {"MrdServer.options.port": 13}),
        "mrd_peer": Case("--mrd-peer 10.0.0.1", {"MrdServer.options.peers": ["10.0.0.1"]}),
        "send_to": Case("--send-to A@host:104", {"_returner.peer": Peer("A", "host", 104)}),
        "dicom_patient": Case("--dicom-patient", {"_returner.named": True}),
        "http_port": Case("--http-port 12", {"PageServer.options.port": 12}),
        "http_host": Case("--http-host h", {"PageServer.options.host": "h"}),
        "http_token": Case("--http-token secret-of-twelve", {"PageServer.options.token": "secret-of-twelve"}),
        "exit_when_idle": Case("--exit-when-idle 1.5", {"run.exit_when_idle": 1.5}),
        "output_resolution": Case("--output-resolution 1.2", {"run.self._options.output_resolution": 1.2}),
        "device": Case("--device torch", {"run.self._options.solver.backend": "torch"}),
        "verbose": Case("-v", {"log_to.verbose": True}),
    },
    "send": {
        "to": Case("--to A@host:104", {"send.peer": Peer("A", "host", 104)}),
        "ae_title": Case("--ae-title T", {"send.options.title": "T"}),
        "dicom_patient": Case("--dicom-patient", {"instances_of.named": True}),
    },
    "report": {
        "output_report": file_case("--output-report", "o.html", "write_report.path"),
        "input_dicom": Case("--input-dicom d", {"stored_examination.input_dicom": [Path("d")]}),
        "input_stacks": Case(
            "--input-stacks a.nii b.nii", {"stored_examination.input_stacks": [Path("a.nii"), Path("b.nii")]}
        ),
    },
    "view": {
        "mask": file_case("v.nii --mask", "m.nii", "read_volume.mask_path"),
        "uncertainty": file_case("v.nii --uncertainty", "u.nii", "read_volume.path"),
        "output": file_case("f.safetensors --output", "o.html", "write_view.path"),
        "resolution": Case("f.safetensors --resolution 2.5", {"render_volume.spacing": 2.5}),
    },
}
# What a command needs at least; of an option that is given again the last value counts, but lists grow.
NEEDED = {
    "reconstruct": "--input-stacks c.nii d.nii --output-volume v.nii",
    "dicom2bids": "export bids",
    "mask": "a.nii --output-dir out --output-picture q.png",
    "bids": "dataset out participant --cluster local",
    "render": "f.safetensors --output-volume v.nii --output-resolution 2",
    "plane": "f.safetensors --output-image p.nii",
    "evaluate": "",
    "simulate": "brain.nii --output-dir out --live B@other",
    "live": "--output-dir out --watch arriving --dicom-port 21 --mrd-port 23 --send-to B@other "
    "--http-port 22 --http-token twelveLetters",
    "send": "examination --to B@other",
    "report": "v.json",
    "view": "",
}
OPTIONS = [
    (name, parameter.name)
    for name, command in COMMANDS.items()
    for parameter in command.params
    if parameter.opts[0].startswith("-") and parameter.name != "help"
]


@pytest.fixture
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Arguments of the last call of each function in `STAND_INS`."""
    calls: dict[str, dict[str, Any]] = {}

    def recording(original: Callable[..., Any], instead: Callable[..., Any] | None) -> Callable[..., Any]:
        def call(*positional: Any, **named: Any) -> Any:
            bound = inspect.signature(original).bind(*positional, **named)
            bound.apply_defaults()
            calls[original.__name__] = dict(bound.arguments)
            return original(*positional, **named) if instead is None else instead(*bound.args)

        return call

    for place, instead in STAND_INS[request.getfixturevalue("command")].items():
        original = pkgutil.resolve_name(place)
        monkeypatch.setattr(place, recording(original, instead))
    return calls


def found(calls: dict[str, dict[str, Any]], place: str) -> Any:
    """What lies at ``function.argument.attribute``, with arrays and tuples as lists."""
    function, argument, *attributes = place.split(".")
    value = calls[function][argument]
    for attribute in attributes:
        value = getattr(value, attribute)
    return value.tolist() if isinstance(value, np.ndarray) else list(value) if isinstance(value, tuple) else value


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examination").mkdir()
    (tmp_path / "examination" / "journal.jsonl").touch()
    lattice = small_lattice(spacing=3.0, sigma=2.2)
    affine = np.diag([3.0, 2.0, 2.5, 1.0])
    field = LatticeField(lattice, random_amplitudes(lattice))
    mask = np.ones((2, 3, 3), bool)
    write_field(tmp_path / "f.safetensors", field, {}, Volume(mask.astype(np.float32), affine, mask))


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_an_option_reaches_the_library(
    command: str, option: str, calls: dict[str, dict[str, Any]], gsvr_command: Command
):
    case = CASES[command][option]  # a new option is to be told here where its value goes
    assert gsvr_command(command, NEEDED[command].split(), case.words.split()).exit_code == 0
    for place, value in case.expected.items():
        assert found(calls, place) == value
    if command == "reconstruct":
        assert calls["write_outputs"]["settings"][option] not in (None, [], False)
    if command not in ("evaluate", "view"):  # and what is there otherwise is something else
        assert gsvr_command(command, NEEDED[command].split()).exit_code == 0
        assert all(found(calls, place) != value for place, value in case.expected.items())
