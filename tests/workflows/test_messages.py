from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gsvr.workflows.messages import told_together
from gsvr.workflows.provenance import heard_warnings


def test_files_of_one_warning_share_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gsvr")
    logger, other = logging.getLogger("gsvr.io.nifti"), logging.getLogger("gsvr.masks")
    with heard_warnings() as heard, told_together("gsvr.io"):
        logger.warning("%s: spacing %.1f mm", Path("p/a.nii"), 3.0)
        logger.info("at once")
        logger.warning("%s: spacing %.1f mm", Path("q/b.nii"), 4.0)
        logger.warning("%s: spacing %.1f mm", Path("q/c.nii"), 3.0)
        other.warning("%s: of another logger", "x")
        logger.warning("no file")
        logger.warning("no file")
    expected = ["at once", "x: of another logger", "p/a.nii, c.nii: spacing 3.0 mm", "q/b.nii: spacing 4.0 mm"]
    assert caplog.messages == [*expected, "no file", "no file"]
    assert heard[1] == "a.nii, c.nii: spacing 3.0 mm"
    logger.warning("as ever")
    assert caplog.messages[-1] == "as ever"


def test_warnings_are_told_before_an_error(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        with told_together("gsvr.io"):
            logging.getLogger("gsvr.io").warning("%s: first", "a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert caplog.messages == ["a: first"]
