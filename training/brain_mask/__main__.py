"""Trains, writes the weights into the package and evaluates them, in one command.

``python -m training.brain_mask --data SHARED --folder RUN``; call it again to go on after an interruption.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from training.brain_mask.evaluate import evaluate_atlas, evaluate_real, print_table
from training.brain_mask.export import export
from training.brain_mask.scene import SceneOptions
from training.brain_mask.train import TrainingOptions, train
from training.brain_mask.volumes import evaluate_volumes, print_volumes

WEIGHTS = Path(__file__).resolve().parents[2] / "src" / "gsvr" / "masks" / "automatic" / "brain.onnx"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds atlas-fidon-cc0, atlas-crl, fetal-mial-sub-01")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the checkpoint and the results")
    parser.add_argument("--steps", type=int, default=TrainingOptions.steps)
    given = parser.parse_args()
    checkpoint = train(given.data / "atlas-fidon-cc0", given.folder, TrainingOptions(steps=given.steps), SceneOptions())
    export(checkpoint, WEIGHTS)
    real = evaluate_real(given.data / "fetal-mial-sub-01")
    print_table(real, each=True)
    volumes = evaluate_volumes(given.data / "fetal-mial-sub-01")
    print_volumes(volumes)
    atlas = evaluate_atlas(given.data / "atlas-crl", 50)
    print_table(atlas, each=False)
    results = json.dumps([asdict(row) for row in [*real, *volumes, *atlas]], indent=1)
    (given.folder / "results.json").write_text(results + "\n")


if __name__ == "__main__":
    main()
