"""What a notebook shows: plain HTML that holds its picture."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from gsvr.model.geometry import pose_about
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        else:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def shown(thing: object) -> np.ndarray:
    """The picture; the HTML is well-formed and asks for nothing else."""
    text = thing._repr_html_()  # pyright: ignore[reportAttributeAccessIssue]
    parser = _Tags()
    parser.feed(text)
    assert parser.open == []
    (image,) = parser.images
    assert image["alt"]
    assert len(text) < 200_000
    assert "http" not in text
    content = re.fullmatch("data:image/png;base64,(.*)", str(image["src"]))
    assert content is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content[1]))))


def test_a_volume_is_shown_the_right_way_up():
    data = np.full((20, 24, 16), 0.3, np.float32)
    data[:, 20:] = 1.0  # front
    picture = shown(Volume(data, np.eye(4)))
    assert picture.shape[0] == 160
    axial = picture[:, : round(160 * 20 / 24)]
    assert axial[:10].mean() > 2 * axial[-10:].mean()
    flipped = np.diag([1.0, -1.0, 1.0, 1.0])
    assert np.array_equal(picture, shown(Volume(data[:, ::-1].copy(), flipped)))
    turned = pose_about(np.array([0.0, 0.0, np.pi / 2]), np.zeros(3), np.zeros(3))
    axial = shown(Volume(data, turned))[:, :190]  # the second axis now points to the right of the patient's left
    assert abs(axial[:, :20].mean() - axial[:, -20:].mean()) > 50


def test_a_stack_has_its_name_escaped():
    stack = Stack("<b>&", np.random.default_rng(0).random((10, 12, 5), np.float32), np.eye(4), 1.0)
    shown(stack)
    assert "&lt;b&gt;&amp;" in stack._repr_html_()


def test_nothing_to_see_is_no_failure():
    shown(Volume(np.zeros((4, 5, 6), np.float32), np.eye(4)))
