"""The page of ``gsvr live``: who may ask, for what, and what a browser makes of it."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gsvr.errors import InputError
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.live.examination import LiveExamination, LiveOptions
from gsvr.workflows.live.planes import PlaneView, picture, window_of
from gsvr.workflows.live.server import PageServer, ServerOptions
from tests.browser import chromium
from tests.workflows.live.conftest import arrive

pytest.importorskip("starlette", reason="starlette is not installed: pip install 'gsvr[live]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'gsvr[live]'")
pytestmark = pytest.mark.slow

_PATIENCE = 120.0
_TOKEN = "a long secret word"


@pytest.fixture(scope="module")
def address(examination: LiveExamination) -> Iterator[str]:
    server = PageServer(ServerOptions(0), lambda: {examination.name: examination})
    server.start()
    yield server.address
    server.stop()


def get(address: str, **headers: str) -> tuple[int, bytes, Any]:
    request = urllib.request.Request(address, headers=headers)
    end = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read(), response.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers
        except urllib.error.URLError:  # the server is about to start
            assert time.monotonic() < end
            time.sleep(0.1)


def plane(address: str, **changed: object) -> tuple[int, bytes]:
    numbers = {"x": 12, "y": -7, "z": 20, "nx": 0, "ny": 0, "nz": -1, "size": 64, "spacing": 1.0} | changed
    query = "&".join(f"{name}={value}" for name, value in numbers.items())
    return get(f"{address}examinations/mother%201/plane.png?{query}")[:2]


def test_planes_come_from_the_field(address: str):
    status, content = plane(address)
    picture = np.asarray(Image.open(io.BytesIO(content)))
    assert status == 200
    assert picture.shape == (64, 64)
    assert picture[28:36, 28:36].mean() > 60  # the brain in the middle, and nothing around it
    assert picture[:4].max() < 30
    assert plane(address, x=200)[1] != content


def test_the_planes_are_there_again_after_a_restart(examination: LiveExamination, tmp_path: Path):
    folder = shutil.copytree(examination.folder, tmp_path / "copy")
    again = LiveExamination(folder, LiveOptions(SolverOptions(), 2.0)).latest
    before, view = examination.latest, PlaneView((12.0, -7.0, 20.0), (0.3, -0.2, -1.0), 64, 1.0)
    assert again is not None
    assert before is not None
    assert (again.stored, again.quality, again.n_stacks) == (True, before.quality, before.n_stacks)
    assert window_of(again) == pytest.approx(window_of(before))
    levels = window_of(before)
    assert picture(again, view, levels, "cpu") == picture(before, view, levels, "cpu")
    (folder / "field.safetensors").write_bytes(b"half")
    assert LiveExamination(folder, LiveOptions(SolverOptions(), 2.0)).latest is None


def test_uncertainty_lies_over_the_brain_alone(address: str):
    def pixels(**changed: object) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(plane(address, **changed)[1])).convert("RGB")).astype(int)

    plain, over = pixels(), pixels(layer="uncertainty")
    coloured = np.ptp(over, axis=2) > 0
    assert coloured[28:36, 28:36].mean() > 0.8
    assert not coloured[:4].any()
    np.testing.assert_array_equal(over[:4], plain[:4])
    assert pixels(layer="other").tolist() == plain.tolist()
    state = json.loads(get(f"{address}examinations/mother%201/state")[1])
    low, high = state["uncertainty_scale"]
    assert 0 < low < high < 1


@pytest.mark.parametrize(
    "changed", [{"size": 100_000}, {"size": 0}, {"spacing": "nan"}, {"x": "inf"}, {"nx": 0, "nz": 0}, {"x": "1e300"}]
)
def test_planes_that_make_no_sense_are_refused(address: str, changed: dict):
    assert plane(address, **changed)[0] == 400


def test_state_and_events(address: str):
    assert [one["name"] for one in json.loads(get(f"{address}examinations")[1])] == ["mother 1"]
    state = json.loads(get(f"{address}examinations/mother%201/state")[1])
    assert state["quality"] == "final"
    assert state["verdict"]["grade"] in ("good", "doubtful", "failed")
    with urllib.request.urlopen(f"{address}examinations/mother%201/events", timeout=60) as stream:
        assert stream.readline() == b"event: before\n"
        events = json.loads(stream.readline().removeprefix(b"data: "))
    assert [event["event"] for event in events if event["event"] != "slice"][:2] == ["started", "stack"]


@pytest.mark.parametrize(
    "path",
    [
        "examinations/mother%201/journal.jsonl",
        "examinations/mother%201/state/poses.json",
        "examinations/mother%201/..%2fin%2fstack-0.nii.gz",
        "examinations/mother%201/%2e%2e/in/stack-0.nii.gz",
        "examinations/..%2fin/volume.nii.gz",
        "examinations/../../etc/passwd",
        "examinations/mother%201//etc/passwd",
        "examinations/other/volume.nii.gz",
    ],
)
def test_no_path_leaves_what_may_be_fetched(address: str, path: str):
    assert get(address + path)[0] == 404


def test_files_that_may_be_fetched(address: str, examination: LiveExamination):
    assert get(f"{address}examinations/mother%201/volume.nii.gz")[1] == examination.paths.volume.read_bytes()
    status, _, headers = get(f"{address}examinations/mother%201/report.html")
    assert status == 200
    assert "sandbox" in headers["Content-Security-Policy"]


def test_nothing_can_be_changed(address: str):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        request = urllib.request.Request(f"{address}examinations/mother%201/volume.nii.gz", method=method)
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=60)
        assert error.value.code == 405


def test_another_site_cannot_ask_through_the_browser(address: str):
    assert get(address, Host="evil.example")[0] == 403
    _, _, headers = get(address)
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["Access-Control-Allow-Origin"] is None


def test_a_token_is_asked_for(examination: LiveExamination):
    server = PageServer(ServerOptions(0, "0.0.0.0", _TOKEN), lambda: {examination.name: examination})
    server.start()
    bare = server.address.partition("?")[0].replace("0.0.0.0", "127.0.0.1")
    try:
        assert get(bare)[0] == 403
        assert get(f"{bare}?token=wrong")[0] == 403
        assert get(f"{bare}examinations", Cookie="gsvr_token=wrong")[0] == 403
        assert get(f"{bare}examinations", Cookie=f'gsvr_token="{_TOKEN}"')[0] == 200
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(f"{bare}?token={_TOKEN.replace(' ', '%20')}", timeout=60) as response:
            assert b"gsvr live" in response.read()
            assert "token" not in response.url
    finally:
        server.stop()


def test_others_need_a_token():
    with pytest.raises(InputError, match="can be reached by others"):
        ServerOptions(0, "0.0.0.0")
    with pytest.raises(InputError, match="easy to guess"):
        ServerOptions(0, "0.0.0.0", "1234")
    with pytest.raises(InputError, match="between 0 and 65535"):
        ServerOptions(70_000)


def test_a_port_that_is_taken_is_refused(address: str):
    port = int(address.rstrip("/").rpartition(":")[2])
    with pytest.raises(InputError, match="choose another port"):
        PageServer(ServerOptions(port), dict)


@pytest.fixture(scope="module")
def driver(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver = chromium(tmp_path_factory.mktemp("profile"))
    driver.set_window_size(1200, 1500)
    driver.get(address)
    yield driver
    driver.quit()


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + _PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)
    return found


def shown(driver: Any, plane: str) -> np.ndarray:
    element = driver.find_element("css selector", f"[data-plane={plane}]")
    return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("L"))


def times_drawn(driver: Any, plane: str) -> int:
    script = "return Number(document.querySelector(`[data-plane=${arguments[0]}]`).dataset.drawn ?? 0)"
    return int(driver.execute_script(script, plane))


def test_the_page_draws_planes_and_follows_the_mouse(driver: Any):
    from selenium.webdriver.common.action_chains import ActionChains

    for name, letters in (("axial", "RLAP"), ("coronal", "RLSI"), ("sagittal", "APSI"), ("oblique", "")):
        until(lambda name=name: times_drawn(driver, name) > 0)
        assert shown(driver, name).std() > 20
        found = driver.find_elements("css selector", f"[data-plane={name}] .letters i")
        assert "".join(letter.text for letter in found) == letters
    before = {name: times_drawn(driver, name) for name in ("coronal", "oblique")}
    pictures = {name: shown(driver, name) for name in before}
    axial = driver.find_element("css selector", "[data-plane=axial]")
    ActionChains(driver).move_to_element_with_offset(axial, 20, -30).click().perform()
    until(lambda: times_drawn(driver, "coronal") > before["coronal"])
    assert (shown(driver, "coronal") != pictures["coronal"]).any()
    before["oblique"] = until(
        lambda: times_drawn(driver, "oblique") > before["oblique"] and times_drawn(driver, "oblique")
    )
    pictures["oblique"] = shown(driver, "oblique")
    oblique = driver.find_element("css selector", "[data-plane=oblique]")
    ActionChains(driver).click_and_hold(oblique).move_by_offset(60, 25).release().perform()
    until(lambda: times_drawn(driver, "oblique") > before["oblique"])
    assert (shown(driver, "oblique") != pictures["oblique"]).any()


def test_what_happens_is_pushed_to_the_page(driver: Any, examination: LiveExamination):
    text = lambda name: driver.find_element("id", name).text  # noqa: E731
    until(lambda: text("connection") == "connected")
    assert text("n-stacks") == "2"
    assert text("verdict-word") != "No verdict yet"
    assert driver.find_elements("css selector", "#motion circle")
    driver.execute_script(
        "window.advised = []; const place = document.getElementById('advice');"
        "new MutationObserver(() => window.advised.push(place.textContent)).observe(place, { childList: true })"
    )
    drawn = times_drawn(driver, "axial")
    arrive(examination, examination.folder.parent / "in", 2)
    until(lambda: text("n-stacks") == "3")
    until(lambda: times_drawn(driver, "axial") > drawn)
    until(lambda: "stack-2 arrived" in text("log"))
    assert text("coverage").endswith("%")
    # the advice of two stacks goes when the volume has three
    until(lambda: len(driver.execute_script("return window.advised")) > 1)
    assert driver.execute_script("return window.advised[0]").startswith("Told with the verdict")
    assert text("advice").startswith(("next: ", "enough"))


def test_the_volume_is_shown_in_the_page_and_nothing_is_asked_of_others(driver: Any, address: str):
    driver.find_element("id", "viewer-start").click()
    frame = driver.find_element("id", "viewer-frame")
    until(lambda: frame.get_attribute("data-state") == "ready")
    canvas = driver.find_element("id", "viewer-canvas")
    driver.execute_script("arguments[0].scrollIntoView()", canvas)
    until(lambda: np.asarray(Image.open(io.BytesIO(canvas.screenshot_as_png)).convert("L")).std() > 10)
    problems = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert problems == []
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert asked
    # those with chrome: or chrome-untrusted: are the browser's own first page
    assert [
        url for url in asked if not url.startswith((address, "data:", "blob:", "chrome:", "chrome-untrusted:"))
    ] == []


def test_the_command_tells_the_address_and_ends_cleanly(tmp_path: Path):
    (tmp_path / "in").mkdir()
    words = ["live", "--output-dir", tmp_path / "out", "--watch", tmp_path / "in", "--http-port", "0"]
    process = subprocess.Popen([sys.executable, "-m", "gsvr", *map(str, words)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().removeprefix("page: ").strip()
    assert get(address)[0] == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
