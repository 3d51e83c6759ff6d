"""The page as a browser shows it. Needs Chromium with its driver (Debian: chromium, chromium-driver)."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gsvr.report.group_page import write_group_page
from gsvr.report.page import write_report
from tests.browser import axe_core, chromium
from tests.report.examinations import small_examination
from tests.report.group_rows import four_rows

pytestmark = pytest.mark.slow

# Seconds: a busy machine draws slowly, without a graphics card even more so.
_PATIENCE = 120.0


def _until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + _PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)
    return found


class Page:
    """An open report."""

    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver, self.folder = driver, folder

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def element(self, name: str) -> Any:
        return self.driver.find_element("id", name)

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self) -> None:
        self.driver.get((self.folder / "report.html").as_uri())

    def start_viewer(self) -> Any:
        self.run("document.getElementById('viewer').scrollIntoView()")
        _until(lambda: self.run("return document.getElementById('viewer-frame').dataset.state") == "ready")
        return self.element("viewer-canvas")

    def shot_of(self, element: Any) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("browser")
    driver = chromium(folder / "profile")
    write_report(folder / "report.html", small_examination())
    opened = Page(driver, folder)
    opened.resize(1280, 1000)
    opened.open()
    yield opened
    driver.quit()


def test_viewer_draws_and_keys_move_the_crosshair(page: Page) -> None:
    canvas = page.start_viewer()
    drawn = page.shot_of(canvas)
    grey = (np.ptp(drawn.astype(int), axis=2) < 8) & (drawn.min(axis=2) > 40)
    assert 0.05 < grey.mean() < 0.9  # the brain, and black around it
    canvas.send_keys("")
    place = page.element("viewer-place")
    for key, word in (("\ue013", "front"), ("\ue00e", "up"), ("\ue012", "left")):  # up, page up, left
        before = place.text
        canvas.send_keys(key)
        _until(lambda before=before: place.text != before)
        assert word in place.text or "right" in place.text
    assert (page.shot_of(canvas) != drawn).any()


def test_mask_and_stacks_can_be_seen(page: Page) -> None:
    canvas = page.start_viewer()
    plain = page.shot_of(canvas)
    page.element("viewer-mask").click()
    _until(lambda: (page.shot_of(canvas)[..., 2].astype(int) - page.shot_of(canvas)[..., 0] > 20).mean() > 0.02)
    page.element("viewer-mask").click()
    images = page.element("viewer-image").find_elements("tag name", "option")
    assert len(images) == 4
    images[1].click()
    _until(lambda: (page.shot_of(canvas) != plain).mean() > 0.05)
    images[0].click()


def test_slices_of_one_stack(page: Page) -> None:
    examination = small_examination()
    name = examination.stack_names[1]
    shown = "return [...document.querySelectorAll('.card')].map((card) => card.dataset.stack)"
    select = page.element("stack-filter")
    select.find_elements("tag name", "option")[2].click()
    assert page.run(shown) == [name] * len(examination.of_stack(name))
    select.find_elements("tag name", "option")[0].click()
    assert len(page.run(shown)) == len(examination.slices)


def test_rating_is_saved(page: Page) -> None:
    downloads = page.folder / "downloads"
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads), "eventsEnabled": False}
    )
    page.run("document.querySelector('input[name=quality][value=\"3\"]').click()")
    page.run("document.querySelector('input[name=faults]').click()")
    page.element("rating-form").find_element("css selector", "button").click()
    (saved,) = _until(lambda: list(downloads.glob("*.json")))
    rating = json.loads(saved.read_text(encoding="utf-8"))
    assert (rating["format"], rating["quality"], rating["faults"]) == ("gsvr-rating", 3, ["blurred"])


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_accessible_and_not_too_wide(page: Page, width: int, dark: bool) -> None:
    axe = axe_core()
    page.resize(width, 900, dark)
    try:
        assert page.run("return document.documentElement.scrollWidth") <= width
        page.run(axe)
        found = page.driver.execute_async_script(
            "axe.run(document, {resultTypes: ['violations']}).then((result) => arguments[0](result.violations))"
        )
        serious = [
            f"{fault['id']}: {[node['html'][:90] for node in fault['nodes'][:3]]}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]
        assert not serious
    finally:
        page.resize(1280, 1000)


def test_nothing_is_asked_of_a_network_and_nothing_is_complained_about(page: Page) -> None:
    page.start_viewer()
    messages = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(address.startswith("file:") for address in asked)  # the log is on
    # those with chrome: or chrome-untrusted: are the browser's own first page
    inside = ("file:", "data:", "blob:", "chrome:", "chrome-untrusted:")
    assert not [address[:80] for address in asked if not address.startswith(inside)]
    assert not [entry for entry in page.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_says_what_is_missing_without_webgl(page: Page) -> None:
    added = page.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "HTMLCanvasElement.prototype.getContext = () => null;"}
    )
    try:
        page.open()
        page.run("document.getElementById('viewer').scrollIntoView()")
        _until(lambda: "no WebGL 2" in page.element("viewer-place").text)
        assert not page.element("viewer-frame").is_displayed()
        assert page.element("verdict").find_element("css selector", "img").is_displayed()
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def _cells(page: Page, column: int) -> list[str]:
    shown = "[...document.querySelectorAll('tbody tr')].filter((row) => !row.hidden)"
    texts = page.run(f"return {shown}.map((row) => row.cells[{column}].innerText)")
    return [text.strip().splitlines()[0] for text in texts]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_a_study_is_sorted_and_sifted(page: Page, width: int, dark: bool) -> None:
    write_group_page(page.folder / "group.html", "a study", four_rows())
    page.driver.get((page.folder / "group.html").as_uri())
    headings = page.driver.find_elements("css selector", "th .sort")
    names = ["sub-01_ses-a", "sub-02", "sub-03", "sub-10"]
    for _ in range(2):
        headings[0].click()
        assert _cells(page, 0) == names
        names = names[::-1]
    headings[2].click()  # by motion: what is not known is last, upwards and downwards
    assert _cells(page, 0)[-2:] == ["sub-03", "sub-02"]
    headings[2].click()
    assert _cells(page, 0)[0] == "sub-03"
    assert _cells(page, 0)[-1] == "sub-02"
    assert page.run("return [...document.querySelectorAll('th[aria-sort=descending]')].length") == 1
    page.run("document.querySelector('#filter input[value=good]').click()")
    assert "sub-01_ses-a" not in _cells(page, 0)
    assert page.run("return document.getElementById('told').textContent") == "3 sessions shown"
    page.run("document.querySelector('#filter input[value=good]').click()")
    test_accessible_and_not_too_wide(page, width, dark)
