"""A phantom brain moves, is reconstructed and compared with the truth; everything lands in demo-output/.

Each step is a ``gsvr`` command as one would type it; it is printed before it runs.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

OUTPUT = Path("demo-output")
STACKS = OUTPUT / "stacks"


def run(*arguments: str | Path) -> None:
    """Print a gsvr command and run it; a failure ends the demo with the command's exit code."""
    words = [str(argument) for argument in arguments]
    print("\n$ gsvr " + shlex.join(words).replace(" --", " \\\n    --"), flush=True)
    # the gsvr that belongs to this interpreter, whatever else is installed
    code = "from gsvr.cli import main; main()"
    finished = subprocess.run([sys.executable, "-c", code, *words], check=False)
    if finished.returncode:
        sys.exit(finished.returncode)


def main() -> None:
    """Simulate, reconstruct, evaluate."""
    start = time.monotonic()
    n_stacks = 6
    run("simulate", "phantom", "--n-stacks", str(n_stacks), "--output-dir", STACKS)
    run(
        "reconstruct",
        *("--input-stacks", *(STACKS / f"stack-{number}.nii.gz" for number in range(n_stacks))),
        *("--stack-masks", *(STACKS / f"stack-{number}_mask.nii.gz" for number in range(n_stacks))),
        *("--output-volume", OUTPUT / "reconstruction.nii.gz"),
        *("--output-poses", OUTPUT / "poses.json"),
    )
    run(
        "evaluate",
        OUTPUT / "reconstruction.nii.gz",
        *("--truth", STACKS / "truth.nii.gz"),
        *("--truth-mask", STACKS / "truth_mask.nii.gz"),
        *("--poses", OUTPUT / "poses.json"),
        *("--true-poses", STACKS / "truth_poses.json"),
        *("--output-json", OUTPUT / "evaluation.json"),
        *("--output-picture", OUTPUT / "comparison.png"),
    )
    print(f"\nDone in {time.monotonic() - start:.0f} s. Look at {OUTPUT / 'comparison.png'}")
    print(f"and at {OUTPUT / 'reconstruction.nii.gz'} beside {STACKS / 'stack-0.nii.gz'} in any NIfTI viewer.")


if __name__ == "__main__":
    main()
