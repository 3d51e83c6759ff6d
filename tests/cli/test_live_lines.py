"""Events of examinations as lines."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from gsvr.cli.live_lines import tell


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"event": "stack", "stack": "a", "slices": 22}, "mother: a arrived, 22 slices\n"),
        (
            {"event": "volume", "quality": "quick", "stacks": ["a"], "latency_seconds": 2.71},
            "mother: quick volume of 1 stack, 2.7 s after the last one\n",
        ),
        (
            {"event": "verdict", "grade": "doubtful", "reasons": ["one"], "advice": ["two"]},
            "mother: verdict: doubtful: one; two\n",
        ),
        ({"event": "advice", "sentence": "next: axial"}, "mother: next: axial\n"),
        ({"event": "sent", "peer": "A@b:104", "images": 90}, "mother: 90 images were sent to A@b:104\n"),
        ({"event": "error", "reason": "a is broken"}, "mother: error: a is broken\n"),
        ({"event": "slice"}, ""),
        ({"event": "started", "stacks": 0}, ""),
    ],
)
def test_events_become_lines(event: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]):
    tell("mother", event)
    assert capsys.readouterr().out == line


def test_a_terminal_that_is_gone_disturbs_nothing(monkeypatch: pytest.MonkeyPatch):
    def echo(_: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(typer, "echo", echo)
    tell("mother", {"event": "advice", "sentence": "next: axial"})
