"""Screenshots of a report, light and dark: ``python -m docs.report_pictures``.

Simulates the phantom with one stack that moves much and loses signal, reconstructs it, and opens the page in Chromium
(Debian: chromium, chromium-driver). Needs the development tools; takes a minute or two.
"""

from __future__ import annotations

import io
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import gsvr
from gsvr.io.atomic import atomic_path
from gsvr.simulation.simulate import SimulationOptions, simulate
from gsvr.workflows.outputs import OutputPaths, write_outputs
from gsvr.workflows.pipeline import job_of, run
from tests.browser import chromium

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT, COLOURS = 1200, 900, 256
# Slices of the third stack that lose their signal.
DARK = range(10, 24)


def main() -> None:
    """Reconstruct, write the page, and take its picture in both colour schemes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = write_page(folder)
        driver = chromium(folder / "profile")
        for scheme in ("light", "dark"):
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False},
            )
            emulated = [{"name": "prefers-color-scheme", "value": scheme}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": emulated})
            driver.get(page.as_uri())
            save(IMAGES / f"report_{scheme}.png", driver.get_screenshot_as_png())
        driver.quit()


def write_page(folder: Path) -> Path:
    """The report of a reconstruction with one bad stack."""
    stacks = list(simulate(gsvr.brain_phantom(), SimulationOptions(n_stacks=4)).stacks)
    data = stacks[2].data.copy()
    data[:, :, DARK] *= np.float32(0.3)
    stacks[2] = replace(stacks[2], data=data)
    reconstruction = run(job_of(stacks, gsvr.SolverOptions()))
    paths = OutputPaths.beside(folder / "phantom.nii.gz", report=folder / "phantom.html")
    write_outputs(reconstruction, paths, {})
    assert paths.report is not None
    return paths.report


def save(path: Path, png: bytes) -> None:
    """Few colours, and so few bytes: the page is grey but for its marks."""
    picture = (
        Image.open(io.BytesIO(png))
        .convert("RGB")
        .quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    )
    with atomic_path(path) as temporary:
        picture.save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
    main()
