"""``make bench-gpu``: a card's kernels are checked against the CPU's and timed, then whole reconstructions.

Needs the checkout, NumPy, SciPy, setuptools, a C compiler, PyTorch and Triton, and nothing else. Parts are written to
benchmarks/results/gpu.json as they are finished, under the card's name. Without a card nothing can be measured: the
command says so and exits with status 2. ``--interpret`` only checks the kernels, in Triton's interpreter.
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
PARTS = ("correctness", "kernels", "reconstruction")
NO_CARD, WRONG = 2, 1
# Pixels along the side of a slice, and splats and sites at once: the interpreter gets through it in a minute.
_TINY, _TINY_CHUNK = 12, 64


def main(words: list[str] | None = None) -> int:
    """Run the parts; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
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
    return _measure(device.backend, asked.parts)


def _interpret() -> int:
    """Check the kernels without a card."""
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    from benchmarks.gpu_card import check_kernels
    from gsvr.backends.torch.backend import TorchBackend
    from gsvr.backends.triton import gaussians, lattice

    gaussians.CHUNK = lattice.SITES = _TINY_CHUNK
    found = check_kernels(TorchBackend("torch", triton=True), _TINY)
    _show(found)
    logger.info("no speed is measured in the interpreter, and nothing is written")
    return 0 if found["passed"] else WRONG


def _show(found: dict[str, Any]) -> None:
    for name, error in found["errors"].items():
        logger.info("%-40s %.1e of the largest value", name, error)
    verdict = "right" if found["passed"] else "WRONG: the rest would mean nothing"
    logger.info("kernels are %s (tolerance %.0e)", verdict, found["tolerance"])


def _measure(backend: str, parts: list[str]) -> int:
    from benchmarks.gpu_card import check_kernels, describe_card, measure_reconstructions, time_kernels
    from gsvr.backends.torch.backend import TorchBackend

    card = TorchBackend(backend)
    name = keep(None, "card", describe_card(card.device))
    measures = {"correctness": check_kernels, "kernels": time_kernels, "reconstruction": measure_reconstructions}
    status = 0
    for part in (part for part in PARTS if part in parts):
        logger.info("%s", part)
        try:
            value = measures[part](card)
        except Exception as error:  # time on a card is dear: the other parts are measured all the same
            logger.exception("%s failed", part)
            value, status = {"failed": f"{type(error).__name__}: {error}"}, WRONG
        keep(name, part, value)
        if part == "correctness":
            if "errors" in value:
                _show(value)
            if not value.get("passed"):
                return WRONG
    return status


def keep(card: str | None, part: str, value: dict[str, Any]) -> str:
    """Write one part of a card's results at once, by default under the name in it; that name."""
    from gsvr.io.record import write_record

    card = card or str(value["name"])
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    record.setdefault(card, {})[part] = value
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_record(RESULTS, record)
    return card


if __name__ == "__main__":
    sys.exit(main())
