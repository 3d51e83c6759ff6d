"""Chromium without a window, for pages; a test that needs it is skipped where there is none."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

_ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking"),
)


def axe_core() -> str:
    """The newest axe-core there is: of npm, in ``node_modules``, or of PyPI; a test is skipped where there is none."""
    newest = Path(__file__).parents[1] / "node_modules/axe-core/axe.min.js"
    found = find_spec("axe_core_python")
    if newest.is_file():
        return newest.read_text(encoding="utf-8")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no axe-core (npm install --no-save axe-core, or pip install axe-core-python)")
    return Path(next(iter(found.submodule_search_locations)), "axe.min.js").read_text(encoding="utf-8")


def chromium(profile: Path) -> Any:
    """A driver, which keeps what is said on consoles and asked of networks.

    Parameters
    ----------
    profile
        Folder of its own.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if browser is None or chromedriver is None:
        pytest.skip("no Chromium with its driver (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        return webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    except Exception as error:
        pytest.skip(f"Chromium does not start here: {str(error).splitlines()[0]}")
