"""What happens to examinations, for the terminal: a line an event, but none for a slice."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import typer


def tell(examination: str, event: Mapping[str, Any]) -> None:
    """Write the line of an event, if it has one; a terminal that is gone disturbs nothing."""
    words = _words(event)
    if words is not None:
        with contextlib.suppress(OSError):
            typer.echo(f"{examination}: {words}")


def _words(event: Mapping[str, Any]) -> str | None:
    match event["event"]:
        case "stack":
            return f"{event['stack']} arrived, {event['slices']} slices"
        case "volume":
            count, seconds = len(event["stacks"]), event["latency_seconds"]
            return f"{event['quality']} volume of {count} stack{'s' * (count != 1)}, {seconds:.1f} s after the last one"
        case "verdict":
            return f"verdict: {event['grade']}: {'; '.join([*event['reasons'], *event['advice']])}"
        case "advice":
            return event["sentence"]
        case "sent":
            return f"{event['images']} images were sent to {event['peer']}"
        case "error":
            return f"error: {event['reason']}"
    return None
