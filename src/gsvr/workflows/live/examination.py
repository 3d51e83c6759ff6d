"""One examination: stacks come in, a volume of all so far comes out, quick at first and then in final quality."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gsvr.compiled.threads import in_a_hurry
from gsvr.errors import InputError
from gsvr.evaluation.next_stack import NextStack, next_stack, words_of
from gsvr.evaluation.verdict import Grade, Limits, Verdict, judge
from gsvr.evaluation.views import coverage
from gsvr.io.atomic import remove_leftovers
from gsvr.io.field import read_field, write_field
from gsvr.io.mask import read_mask
from gsvr.io.nifti import read_stack, read_volume, write_volume
from gsvr.io.outputs import begin_writing
from gsvr.io.transforms import write_poses_json
from gsvr.masks.first import StackMasks
from gsvr.model.fields import Field
from gsvr.model.slices import SliceKey, Stack
from gsvr.model.volume import Volume
from gsvr.render import VOXEL_SIZE
from gsvr.solver.motion import movements, time_links
from gsvr.solver.online.arriving import ArrivingStack, PlacedSlice
from gsvr.solver.online.reconstruction import OnlineState, can_join, finish, update
from gsvr.solver.reconstruct import Progress
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.state import Result
from gsvr.workflows.inputs import StackInputs
from gsvr.workflows.live.arrival import Arrival, Refusal, SliceArrival
from gsvr.workflows.live.events import EventLog
from gsvr.workflows.live.journal import Journal
from gsvr.workflows.live.saved_state import read_state, write_state
from gsvr.workflows.outputs import OutputPaths, slice_records, write_outputs
from gsvr.workflows.pipeline import (
    Job,
    Reconstruction,
    doubt_of_thickness,
    fitting_options,
    job_of,
    rendered_volume,
    with_margin,
)
from gsvr.workflows.provenance import InputFile, Provenance, hashed_files

logger = logging.getLogger(__name__)

# Seconds until something that failed for want of disk or memory is tried again.
_RETRY = 5.0
_ABOUT_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
# Stacks of one examination; a scanner makes two dozen at most.
_MOST_STACKS = 100
# Slices that wait to be placed; of more the oldest are placed with their stack.
_MOST_SLICES = 500
# Stacks that are being acquired at a time, or were never completed.
_MOST_ARRIVING = 4


class Interrupted(Exception):  # noqa: N818
    """Raised inside a reconstruction that is not wanted any more."""


@dataclass(frozen=True)
class LiveOptions:
    """How examinations are reconstructed.

    Attributes
    ----------
    solver
        Options of the solver; the stages are made to suit the stacks.
    output_resolution
        Voxel size of the volume (mm).
    settings, command
        Of the program, for the record.
    """

    solver: SolverOptions = field(default_factory=SolverOptions)
    output_resolution: float = VOXEL_SIZE
    settings: dict[str, Any] = field(default_factory=dict)
    command: str | None = None


@dataclass(frozen=True)
class _Received:
    """A stack, the files that it was read from, and the mask that was found on it if it came without one."""

    arrival: Arrival
    stack: Stack
    files: Sequence[InputFile]
    found: np.ndarray | None = None


@dataclass(frozen=True)
class Latest:
    """The newest volume, for whoever shows it.

    Attributes
    ----------
    field, mask, volume
        What it is.
    quality
        ``"quick"`` or ``"final"``.
    n_stacks
        That it was made of.
    stored
        Whether an earlier process made it.
    verdict
        Of a final one.
    uncertainty
        Of a final one that has a verdict: standard deviation by place as a share of white, see
        `gsvr.evaluation.next_stack.NextStack`.
    """

    field: Field
    mask: Volume
    volume: Volume
    quality: str
    n_stacks: int
    stored: bool = False
    verdict: Verdict | None = None
    uncertainty: Volume | None = None


class LiveExamination:
    """Receives stacks and slices from one thread, places slices in a second one, and makes volumes in a third.

    Parameters
    ----------
    folder
        Of its outputs; what it holds of an earlier process is taken up again.
    stopping
        Whether the process is about to end.
    """

    def __init__(self, folder: Path, options: LiveOptions, stopping: Callable[[], bool] = lambda: False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state").mkdir(exist_ok=True)
        self.folder, self.name = folder, folder.name
        self.paths = output_paths(folder)
        self.events = EventLog(folder / "events.jsonl")
        self.latest: Latest | None = None
        self._options, self._stopping = options, stopping
        self._journal = Journal(folder / "journal.jsonl", self.name)
        self._lock = threading.Lock()
        self._received: dict[Path, _Received] = {}
        self._versions: set[str] = set()
        self._left_out: set[Path] = set()
        self._pending, self._unfinished, self._working, self._not_before = False, False, False, 0.0
        self._last_arrival = time.time()
        # whether the stacks joined the volume one by one; when the work on a volume began, in CPU seconds
        self._joined, self._cpu = False, 0.0
        self._state = read_state(folder / "state")
        # slices of stacks that are being acquired: those to be placed, and where those before are
        self._waiting: deque[SliceArrival] = deque(maxlen=_MOST_SLICES)
        self._arriving: dict[str, ArrivingStack] = {}
        self._last_pose, self._placing = np.eye(4), threading.Lock()
        self._resume()

    def _resume(self) -> None:
        """Take up the arrivals of an earlier process."""
        for place in (self.folder, self.folder / "state"):
            remove_leftovers(place)
        for arrival in self._journal.before:
            self._take(arrival)
        self.latest = self._stored()
        joined = set() if self._state is None else {name for name, _ in self._state.poses}
        with self._lock:
            self._pending = any(one.stack.name not in joined for one in self._received.values())
            self._unfinished = len(self._received) > 1 and not self.paths.record.exists()
        self.events.tell("started", stacks=len(self._received))

    def _stored(self) -> Latest | None:
        """The volume of an earlier process, if its files are whole."""
        if self._state is None:
            return None
        try:
            volume, model = read_volume(self.paths.volume, self.paths.mask), read_field(self.paths.model)
        except (InputError, OSError) as error:
            logger.info("%s: no volume of an earlier process (%s)", self.name, error)
            return None
        if model.mask is None or volume.mask is None or not volume.mask.any():
            return None
        quality = "final" if self.paths.record.exists() else "quick"
        return Latest(model.field, model.mask, volume, quality, self._state.n_stacks, stored=True)

    def receive(self, arrival: Arrival) -> None:
        """Take over a stack: it is in the journal when this returns.

        Raises
        ------
        OSError
            If the journal cannot be written: the arrival has to be delivered again.
        """
        if arrival.version in self._versions:
            return
        if self._take(arrival):
            try:
                self._journal.note(arrival)
            except OSError:
                self._forget(arrival)
                raise
            stack = self._received[arrival.path].stack
            self.events.tell(
                "stack",
                stack=stack.name,
                slices=stack.n_slices,
                mask_given=stack.mask is not None,
                latency_seconds=_since(arrival.time),
            )
            with self._lock:
                self._pending, self._not_before = True, 0.0

    def refuse(self, refusal: Refusal) -> None:
        """Tell of something that cannot be used."""
        self.events.tell("error", reason=refusal.reason, latency_seconds=_since(refusal.time))

    def see(self, arrival: SliceArrival) -> None:
        """Take over a slice of a stack that is being acquired, to be placed soon."""
        with self._lock:
            if all(one.stack.name != arrival.stack for one in self._received.values()):
                self._waiting.append(arrival)
                self._last_arrival = time.time()

    @property
    def has_slices(self) -> bool:
        """Whether slices wait to be placed."""
        return bool(self._waiting)

    def place(self) -> None:
        """Place the slices that wait, those of one stack at a time; errors become events."""
        with self._lock:
            stack = self._waiting[0].stack if self._waiting else ""
            arrivals = [one for one in self._waiting if one.stack == stack]
            others = [one for one in self._waiting if one.stack != stack]
            self._waiting.clear()
            self._waiting.extend(others)
            state = self._state
        if not arrivals:
            return
        if state is None:  # nothing to place them against
            self.events.tell_all([_arrival_event(arrival, None) for arrival in arrivals])
            return
        try:
            with self._placing:
                arriving = self._arriving.setdefault(stack, ArrivingStack(stack, self._last_pose))
                while len(self._arriving) > _MOST_ARRIVING:  # series that never become a stack
                    self._arriving.pop(next(iter(self._arriving)))
                times = [
                    float(arriving.n_slices + number) if one.acquired is None else one.acquired
                    for number, one in enumerate(arrivals)
                ]
                options = fitting_options([one.image for one in arrivals], self._options.solver)
                with in_a_hurry():
                    placed = arriving.place(state, [one.image for one in arrivals], times, options)
        except Exception as error:
            # whatever it is: the slices come once more, with their stack
            logger.exception("%s: slices could not be placed", self.name)
            with self._placing:
                self._arriving.pop(stack, None)
            self.events.tell("error", reason=f"slices of {stack} could not be placed ({type(error).__name__})")
            return
        self.events.tell_all([_arrival_event(*pair) for pair in zip(arrivals, placed, strict=True)])

    def _placed(self, received: Sequence[_Received]) -> dict[SliceKey, np.ndarray]:
        """Poses of the slices of new stacks that were placed as they came."""
        found: dict[SliceKey, np.ndarray] = {}
        with self._placing:
            for one in received:
                arriving = self._arriving.pop(one.stack.name, None)
                if arriving is not None:
                    found |= arriving.poses_of(one.stack)
        return found

    def _take(self, arrival: Arrival) -> bool:
        """Read a stack; whether it can be used."""
        try:
            if len(self._received) >= _MOST_STACKS and arrival.path not in self._received:
                raise InputError(f"{arrival.path} is one stack too many for one examination: begin another folder")
            stack = read_stack(arrival.path)
            if arrival.mask is not None:
                stack = replace(stack, mask=read_mask(arrival.mask, stack))
            self._refuse_second(arrival, stack)
            files = hashed_files(StackInputs([arrival.path], [] if arrival.mask is None else [arrival.mask]))
        except InputError as error:
            self._versions.add(arrival.version)
            self.events.tell("error", reason=self._plain(error, arrival.path), latency_seconds=_since(arrival.time))
            return False
        with self._lock:
            for path in arrival.replaces:
                self._received.pop(path, None)
            self._received[arrival.path] = _Received(arrival, stack, files)
            self._versions.add(arrival.version)
            self._left_out.discard(arrival.path)
            self._last_arrival = time.time()
            waiting = [one for one in self._waiting if one.stack != stack.name]
            self._waiting.clear()
            self._waiting.extend(waiting)
        return True

    def _plain(self, error: InputError, *paths: Path) -> str:
        """Without folders, which may carry a name."""
        text = str(error)
        for folder in {self.folder, *(path.parent for path in (*self._received, *paths))}:
            text = text.replace(f"{folder}{os.sep}", "")
        return text

    def _refuse_second(self, arrival: Arrival, stack: Stack) -> None:
        for path, other in self._received.items():
            if path != arrival.path and other.stack.name == stack.name:
                raise InputError(f"{arrival.path} has the same name as another stack: rename it")

    def _forget(self, arrival: Arrival) -> None:
        with self._lock:
            self._received.pop(arrival.path, None)
            self._versions.discard(arrival.version)

    @property
    def waits(self) -> str | None:
        """What there is to do: ``"quick"`` or ``"final"``; None: nothing now."""
        with self._lock:
            if time.monotonic() < self._not_before:
                return None
            return "quick" if self._pending else "final" if self._unfinished else None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do, not even later."""
        with self._lock:
            return not (self._pending or self._unfinished or self._working or self._waiting)

    @property
    def last_arrival(self) -> float:
        """When the last image came (seconds since 1970)."""
        return self._last_arrival

    @property
    def arrivals(self) -> list[Arrival]:
        """Of the stacks so far."""
        with self._lock:
            return [one.arrival for one in self._received.values()]

    def work(self) -> None:
        """Make the volume that is due; errors become events."""
        self._cpu = time.process_time()
        with self._lock:
            received = [one for path, one in self._received.items() if path not in self._left_out]
            quick, self._pending, self._working = self._pending, False, True
        try:
            self._make(received, quick)
        finally:
            with self._lock:
                self._working = False

    def _make(self, received: Sequence[_Received], quick: bool) -> None:
        try:
            if quick:
                self._quick(received)
            else:
                self._final(received)
        except Interrupted:
            with self._lock:
                self._pending = self._pending or quick
        except (InputError, OSError, MemoryError) as error:
            if isinstance(error, InputError) and not _is_about_writing(error):
                self._blame(received, self._plain(error))
            else:
                self._try_later(error, quick)
        except Exception as error:
            # whatever it is, the next stack deserves its chance
            logger.exception("%s: a reconstruction failed", self.name)
            self._blame(received, f"the reconstruction failed ({type(error).__name__})")

    def _try_later(self, error: Exception, quick: bool) -> None:
        """A full disk or memory is nobody's fault, and may pass."""
        reason = self._plain(error) if isinstance(error, InputError) else _words(error)
        self.events.tell("error", reason=reason, retry_seconds=_RETRY)
        with self._lock:
            self._pending, self._not_before = self._pending or quick, time.monotonic() + _RETRY

    def _blame(self, received: Sequence[_Received], reason: str) -> None:
        """Leave the new stacks out if there is a volume without them, else wait for more."""
        joined = set() if self._state is None else {name for name, _ in self._state.poses}
        new = [one for one in received if one.stack.name not in joined]
        leave = new if len(new) < len(received) else []
        self.events.tell("error", reason=reason, left_out=[one.stack.name for one in leave])
        with self._lock:
            self._left_out.update(one.arrival.path for one in leave)
            self._unfinished = False if not leave else not self.paths.record.exists()

    def _quick(self, received: Sequence[_Received]) -> None:
        before = self._state
        job = self._job(received)
        assert isinstance(job.options, SolverOptions)
        joined = before is not None and can_join(before, job.slices)
        known = self._placed(received)
        self._state, result = update(before, job.slices, job.options, known, self._between)
        self._joined = joined
        volume = rendered_volume(result, self._options.output_resolution, job.options)
        self._write_quick(job, result, volume)
        self._show(result, volume, "quick")
        with self._lock:
            self._unfinished = len(received) > 1  # one stack cannot be corrected for motion, nor judged
        # the motion of the only stack is known once there is a second one
        told = set() if before is None or before.n_stacks == 1 else set(before.poses)
        self.events.tell_all(_slice_events(result, told, received))
        self._tell_volume(received, "quick", result)
        write_state(self.folder / "state", self._state)

    def _final(self, received: Sequence[_Received]) -> None:
        job = self._job(received)
        if self._state is None or set(job.slices.keys) - set(self._state.poses):
            with self._lock:
                self._pending = True
            return
        made = self._finished(job, self._state, received)
        if made.verdict.grade != "good" and self._joined:
            made = self._better_from_nothing(job, made, received)
        write_outputs(made, self.paths, self._options.settings, self._options.command)
        found = next_stack(made.result)
        self._show(made.result, made.volume, "final", made.verdict, found.map)
        with self._lock:
            self._unfinished = False
        verdict = made.verdict
        self.events.tell(
            "verdict",
            grade=verdict.grade,
            reasons=verdict.reasons,
            advice=verdict.advice,
            latency_seconds=_since(max(one.arrival.time for one in received)),
        )
        self.events.tell("advice", **_advice(made, found))

    def _finished(self, job: Job, state: OnlineState, received: Sequence[_Received]) -> Reconstruction:
        """The volume in final quality, and what it is worth."""
        assert isinstance(job.options, SolverOptions)
        state, result = finish(state, job.slices, job.options, self._between_or_newer)
        volume = rendered_volume(result, self._options.output_resolution, job.options)
        self._write_quick(job, result, volume)
        self._state = state
        self._show(result, volume, "final")
        self._tell_volume(received, "final", result)
        write_state(self.folder / "state", state)
        verdict = judge(result, job.copies)
        doubt = doubt_of_thickness(result, job.stacks)
        warnings = (*job.provenance.warnings, *(() if doubt is None else (doubt,)))
        return Reconstruction(job, result, volume, verdict, job.timings, warnings)

    def _better_from_nothing(self, job: Job, made: Reconstruction, received: Sequence[_Received]) -> Reconstruction:
        """Where stacks that joined one by one make no good volume, all at once may: whichever is better."""
        logger.info("%s: %s; once more from nothing", self.name, made.verdict.sentence)
        assert isinstance(job.options, SolverOptions)
        kept, self._joined = self._state, False
        assert kept is not None
        state, _ = update(None, job.slices, job.options, callback=self._between_or_newer)
        again = self._finished(job, state, received)
        if _rank(again.verdict) > _rank(made.verdict):
            return again
        self._state = kept
        self._write_quick(job, made.result, made.volume)
        write_state(self.folder / "state", kept)
        return made

    def _show(
        self,
        result: Result,
        volume: Volume,
        quality: str,
        verdict: Verdict | None = None,
        uncertainty: Volume | None = None,
    ) -> None:
        assert self._state is not None
        n_stacks = self._state.n_stacks
        self.latest = Latest(
            *(result.field, result.mask, volume, quality, n_stacks), verdict=verdict, uncertainty=uncertainty
        )
        self._last_pose = result.poses[time_links(result.slices)[-1][-1]]

    def _job(self, received: Sequence[_Received]) -> Job:
        """All stacks with masks; those that are found are kept for the next time."""
        provenance = Provenance()
        stacks = [one.stack if one.found is None else replace(one.stack, mask=one.found) for one in received]
        job = job_of(stacks, self._options.solver)
        found = []
        for one, mask, is_found in zip(received, job.masks.masks, job.masks.found, strict=True):
            if is_found:
                with self._lock:
                    if self._received.get(one.arrival.path) is one:
                        self._received[one.arrival.path] = replace(one, found=mask)
            found.append(is_found or one.found is not None)
        masks = StackMasks(job.masks.masks, job.masks.fields_of_view, job.masks.drawn, found)
        files = [file for one in received for file in one.files]
        options = with_margin(job.options, masks)
        return replace(
            job,
            stacks=[one.stack for one in received],
            options=options,
            masks=masks,
            provenance=replace(provenance, files=files),
        )

    def _between(self, progress: Progress) -> None:
        if self._stopping():
            raise Interrupted

    def _between_or_newer(self, progress: Progress) -> None:
        self._between(progress)
        with self._lock:
            newer = self._pending
        if newer:
            raise Interrupted

    def _write_quick(self, job: Job, result: Result, volume: Volume) -> None:
        """The volume and what belongs to it; without a record until everything is there."""
        assert volume.mask is not None
        begin_writing(self.paths.written, self.paths.record)
        write_volume(self.paths.volume, volume.data, volume.affine)
        write_volume(self.paths.mask, volume.mask, volume.affine)
        write_field(
            self.paths.model, result.field, {"noise": result.noise, "margin": job.options.masks.margin}, result.mask
        )
        write_poses_json(self.paths.poses, slice_records(result))

    def _tell_volume(self, received: Sequence[_Received], quality: str, result: Result) -> None:
        cpu, self._cpu = time.process_time() - self._cpu, time.process_time()
        believed = result.slice_weights >= Limits.believed
        self.events.tell(
            "volume",
            quality=quality,
            stacks=[one.stack.name for one in received],
            believed=float(believed[result.slice_weights > 0].mean()),
            coverage=coverage(result, believed),
            noise=result.noise,
            cpu_seconds=round(cpu, 2),
            latency_seconds=_since(max(one.arrival.time for one in received)),
        )


def output_paths(folder: Path) -> OutputPaths:
    """Where the outputs of an examination are."""
    return OutputPaths(
        volume=folder / "volume.nii.gz",
        mask=folder / "mask.nii.gz",
        poses=folder / "poses.json",
        transforms=folder / "transforms",
        model=folder / "field.safetensors",
        record=folder / "record.json",
        picture=folder / "picture.png",
        report=folder / "report.html",
    )


def _slice_events(result: Result, known: set, received: Sequence[_Received]) -> list[dict[str, Any]]:
    """Pose and movement of every slice that is new, in the order of acquisition."""
    slices = result.slices
    arrived = {one.stack.name: one.arrival.time for one in received}
    pixels, keys = slices.sum_per_slice(slices.mask), slices.keys
    events = []
    moved = movements(slices, result.poses)
    for order in time_links(slices):
        for number in order:
            (stack, index), movement = keys[number], moved[number]
            if (stack, index) in known:
                continue
            events.append(
                {
                    "event": "slice",
                    "stack": stack,
                    "slice_index": index,
                    "used": bool(pixels[number] > 0),
                    "movement_mm": round(float(movement), 3) if np.isfinite(movement) and len(received) > 1 else None,
                    "weight": round(float(result.slice_weights[number]), 3),
                    "pose": np.round(result.poses[number], 5),
                    "latency_seconds": _since(arrived[stack]),
                }
            )
    return events


def _arrival_event(arrival: SliceArrival, placed: PlacedSlice | None) -> dict[str, Any]:
    """What a slice tells before its stack is complete; it has no number in the stack yet."""
    event: dict[str, Any] = {"event": "slice", "stack": arrival.stack, "slice_index": None, "arriving": True}
    if placed is None:
        event |= {"used": None, "movement_mm": None, "pose": None}
    else:
        agreement, movement = placed.agreement, placed.movement
        event |= {
            "number": placed.number,
            "used": bool(np.isfinite(agreement)),
            "movement_mm": round(movement, 3) if np.isfinite(movement) else None,
            "agreement": round(agreement, 3) if np.isfinite(agreement) else None,
            "pose": np.round(placed.pose, 5),
        }
    return event | {"latency_seconds": _since(arrival.time)}


def _advice(made: Reconstruction, found: NextStack) -> dict[str, Any]:
    """What to acquire next, with directions as the scanner has them now."""
    result = made.result
    last = time_links(result.slices)[-1][-1]  # where the head was at last
    normal = result.poses[last, :3, :3].T @ found.best
    worth = max(found.of_stacks, key=lambda name: found.of_stacks[name])
    percent = f"{100 * found.gain:.0f} %"
    if made.verdict.grade == "failed":
        sentence = "the volume failed: follow the verdict before anything else"
    elif found.enough:
        sentence = f"enough: another stack would lower the uncertainty in the brain by {percent} only"
    else:
        sentence = (
            f"next: {words_of(normal)}; it would lower the uncertainty in the brain by {percent}; of the stacks so far "
            f"{worth} is most worth repeating ({100 * found.of_stacks[worth]:.0f} %)"
        )
    return {
        "sentence": sentence,
        "normal": np.round(normal, 3),
        "gain": found.gain,
        "of_stacks": found.of_stacks,
        "uncertainty": found.uncertainty,
        "enough": found.enough,
    }


def _rank(verdict: Verdict) -> tuple[int, float]:
    """More is better."""
    grades: list[Grade] = ["failed", "doubtful", "good"]
    ncc = verdict.evidence.predicted_ncc
    return grades.index(verdict.grade), ncc if np.isfinite(ncc) else -1.0


def _since(moment: float) -> float:
    return round(time.time() - moment, 3)


def _is_about_writing(error: InputError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _ABOUT_WRITING


def _words(error: BaseException) -> str:
    """What went wrong, without folders, which may carry a name."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__
