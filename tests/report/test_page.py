from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from gsvr.errors import InputError
from gsvr.report.page import check_report_path, report_page, write_report
from tests.report.examinations import DARK, small_examination

# Elements without an end.
VOID = {"meta", "img", "input", "link", "br", "hr"}


class Page(HTMLParser):
    """Elements of a page; fails where they do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, tag: str, kind: str | None = None) -> list[dict[str, str]]:
        return [a for t, a in self.found if t == tag and (kind is None or kind in a.get("class", "").split())]


@pytest.fixture(scope="module")
def text() -> str:
    return report_page(small_examination())


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_needs_nothing_else(text: str, page: Page) -> None:
    assert not page.of("link")
    assert not [a for a in page.of("script") if "src" in a]
    for image in page.of("img"):
        assert image["src"].startswith("data:image/")
        assert image["alt"]
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", text)
    assert len(text) < 15e6


def test_names_are_text(text: str, page: Page) -> None:
    assert "<i>brain" not in text
    assert "<b>run" not in text
    assert any("<b>run&1" in words for words in page.words)


def test_links_within_the_page_lead_somewhere(page: Page) -> None:
    places = [a["id"] for _, a in page.found if "id" in a]
    assert len(places) == len(set(places))
    targets = [a["href"] for a in page.of("a")]
    assert targets
    assert {target.removeprefix("#") for target in targets} <= set(places)


def test_every_slice_is_reachable_and_the_worst_come_first(page: Page) -> None:
    examination = small_examination()
    cards = page.of("li", "card")
    assert len(cards) == len(examination.slices)
    weights = [float(card["data-weight"]) for card in cards]
    n_dark = len(DARK)
    assert weights[:n_dark] == [0.02] * n_dark
    assert min(weights[n_dark:]) > 0.02


def test_says_which_stack_is_worst_and_why(page: Page) -> None:
    words = " ".join(" ".join(page.words).split())
    assert re.search(
        r"Worst stack: <b>run&1\. 3 of its \d+ slices count less than half: signal loss \(3 slices\)\.", words
    )
    assert "of it is much darker than predicted" in words


def test_tells_the_verdict_and_the_choice_of_the_record() -> None:
    examination = small_examination()
    verdict = {"grade": "doubtful", "reasons": ["a stack disagrees"], "advice": ["repeat it"], "evidence": {}}
    errors = {"lattice": [0.2, 0.05], "free": [0.3, 0.06], "average": [0.04]}
    choice = {"share": 0.4, "prior_factor": 0.5, "pixels": 800, "errors": errors}
    record = {**examination.record, "verdict": verdict, "field_choice": choice}
    page = Page(report_page(replace(examination, record=record)))
    assert page.of("div", "doubtful")
    words = " ".join(" ".join(page.words).split())
    assert "Doubtful: look closer before you use it a stack disagrees What to do: repeat it" in words
    assert "40 % free Gaussians and 60 % a lattice of Gaussians, with 0.5 of the usual smoothness" in words
    assert (
        "800 pixels held out inside the brain best. Errors (share of bright tissue): lattice 0.05, free 0.06" in words
    )


def test_older_outputs_without_stacks_or_details_make_a_page() -> None:
    examination = small_examination()
    poses = [replace(pose, details={}) for pose in examination.slices]
    page = Page(report_page(replace(examination, record={}, slices=poses, acquisition=None)))
    assert len(page.of("li", "card")) == len(poses)
    assert not [a for _, a in page.found if a.get("id") == "before-and-after"]


def test_written_whole_under_a_name_that_browsers_know(tmp_path) -> None:
    write_report(tmp_path / "a.html", small_examination())
    assert (tmp_path / "a.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    check_report_path(tmp_path / "b.html")
    with pytest.raises(InputError, match=r"must end in \.html"):
        check_report_path(tmp_path / "b.pdf")
