"""The page of a study without a browser, and its table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gsvr.report.group_page import write_group_page, write_group_table
from tests.report.examinations import DARK, small_examination
from tests.report.group_rows import four_rows


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("group") / "group.html"
    write_group_page(path, "<i>a study</i>", four_rows())
    return path.read_text(encoding="utf-8")


def test_what_needs_a_look_comes_first(page: str):
    assert re.findall(r'<tr class="(\w+)"', page) == ["none", "failed", "doubtful", "good"]


def test_numbers_are_those_of_the_reconstruction():
    row = four_rows()[0]
    examination = small_examination()
    assert row.name == "sub-01_ses-a"
    assert row.n_stacks == 3
    assert row.n_slices == sum(bool(pose.details["used"]) for pose in examination.slices)
    assert row.n_doubted == len(DARK)
    assert row.millilitres == pytest.approx(examination.mask.sum() * 0.8**3 / 1000, rel=1e-3)
    assert 0.5 < row.displacement < 10  # the motion is moderate
    assert (row.correlation, row.agreeing, row.seconds, row.version) == (0.91, 0.875, 12.0, "0.9")


def test_every_number_is_in_the_page(page: str):
    good = page[page.index("sub-01_ses-a") :]
    for words in ("0.91", "88%", f"{len(DARK)} of ", " ml", "12 s"):
        assert words in good
    assert page.count("data:image/webp;base64,") == 9  # three planes of three sessions
    assert '<a href="sub-01_ses-a.html">sub-01_ses-a</a>' in page
    assert 'href="sub-03' not in page


def test_names_and_reasons_are_no_markup_and_nothing_is_loaded(page: str):
    assert "<i>a study" not in page
    assert "&lt;i&gt;a study" in page
    assert "<b>all" not in page
    assert not re.search(r'(?:src|href)="(?!data:|#|sub-)', page)
    assert "http" not in re.sub(r"data:[^\"]*", "", page)


def test_the_table_is_one_of_bids(tmp_path: Path):
    write_group_table(tmp_path / "group.tsv", four_rows())
    heading, *lines = (line.split("\t") for line in (tmp_path / "group.tsv").read_text().splitlines())
    rows = [dict(zip(heading, line, strict=True)) for line in lines]
    assert [row["participant_id"] for row in rows] == ["sub-01", "sub-02", "sub-03", "sub-10"]
    assert [row["session_id"] for row in rows] == ["ses-a", "n/a", "n/a", "n/a"]
    assert [row["verdict"] for row in rows] == ["good", "not reconstructed", "doubtful", "failed"]
    assert [row["ncc"] for row in rows] == ["0.91", "n/a", "0.8", "0.5"]
    assert rows[1]["motion_mm"] == rows[1]["stacks"] == rows[1]["slices_doubted"] == "n/a"
    assert rows[1]["reasons"] == "one stack cannot be corrected for motion give two"
