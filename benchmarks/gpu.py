"""``make bench-gpu``: a card's kernels are checked, then timed against its ceilings, then whole reconstructions.

Needs the checkout, NumPy, SciPy, setuptools, a C compiler, PyTorch and Triton, and nothing else. Parts are written to
benchmarks/results/gpu.json as they are finished, under the card's name. Without a card nothing can be measured: the
command says so and exits with status 2. ``--interpret`` checks the kernels on a tiny problem in Triton's interpreter
instead.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.bare_machine import stand_in

logger = logging.getLogger("benchmarks.gpu")  # also when run as a program

RESULTS = Path(__file__).resolve().parent / "results" / "gpu.json"
PARTS = (
    "correctness",
    "ceilings",
    "kernels",
    "reconstruction",
    "deterministic",
    "rounds",
    "throughput",
    "paper",
    "large",
)
NO_CARD = 2
WRONG = 1
# Pixels along the side of a slice that the interpreter gets through in some seconds.
_TINY = 10
# Splats at once in the interpreter, to which a small chunk costs as much as a large one.
_TINY_CHUNK = 32


def main(words: list[str] | None = None) -> int:
    """Run the parts; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[part for part in PARTS if part != "large"])
    parser.add_argument("--full", action="store_true", help="also ten million pixels")
    parser.add_argument("--device", default="cuda", help="which card: cuda:0, cuda:1, ...")
    parser.add_argument("--interpret", action="store_true", help="only check the kernels, in Triton's interpreter")
    asked = parser.parse_args(words)
    logging.basicConfig(format="bench-gpu: %(message)s")
    logger.setLevel(logging.INFO)
    for name in stand_in():
        logger.info("%s is not installed: going on without it", name)
    if asked.interpret:
        return _interpret()
    from gsvr.backends.devices import choose_device
    from gsvr.errors import InputError

    try:
        device = choose_device(asked.device)
    except InputError as error:
        logger.error("nothing was measured: %s", error)
        return NO_CARD
    logger.info("%s", device.reason)
    return _measure(device.backend, [*asked.parts, *(["large"] if asked.full else [])])


def _interpret() -> int:
    """Check the kernels without a card."""
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    import torch

    from benchmarks.gpu_correctness import measure_correctness
    from gsvr.backends.triton import gaussians as triton_gaussians

    triton_gaussians.CHUNK = _TINY_CHUNK
    found = measure_correctness(torch.device("cpu"), _TINY)
    _show_errors(found)
    logger.info("no speed is measured in the interpreter, and nothing is written")
    return 0 if found["passed"] else WRONG


def _show_errors(found: dict[str, Any]) -> None:
    for name, error in found["errors"].items():
        logger.info("%-32s %.1e of the largest value", name, error)
    verdict = "right" if found["passed"] else "WRONG: the rest would mean nothing"
    logger.info("kernels are %s (tolerance %.0e)", verdict, found["tolerance"])


def _measure(backend: str, parts: list[str]) -> int:
    import torch

    from benchmarks.gpu_card import describe_card
    from benchmarks.gpu_parts import GpuParts

    device = torch.device(backend)
    torch.cuda.set_device(device)
    card = torch.cuda.get_device_name(device)
    keep(card, "card", describe_card(device))
    measured = GpuParts(device, known=_known(card))
    status = 0
    for part in (part for part in PARTS if part in parts):
        logger.info("%s", part)
        try:
            value = getattr(measured, part)()
        except Exception as error:  # time on a card is dear: the other parts are measured all the same
            logger.exception("%s failed", part)
            value, status = {"failed": f"{type(error).__name__}: {error}"}, WRONG
        keep(card, part, value)
        if part == "correctness" and "errors" in value:
            _show_errors(value)
        if part == "correctness" and not value.get("passed"):
            return WRONG
    print(json.dumps(_known(card), indent=1))
    return status


def _known(card: str) -> dict[str, Any]:
    """What has been measured on a card so far."""
    return json.loads(RESULTS.read_text(encoding="utf-8")).get(card, {}) if RESULTS.exists() else {}


def keep(card: str, part: str, value: Any) -> None:
    """Write one part of a card's results at once."""
    from gsvr.io.record import write_record

    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    record.setdefault(card, {})[part] = value
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_record(RESULTS, record)


if __name__ == "__main__":
    sys.exit(main())
