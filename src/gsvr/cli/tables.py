"""Tables of results for the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def result_table(title: str, rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ()) -> Table:
    """Names on the left, numbers on the right; the columns have headings if `header` is given."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_header=bool(header))
    for number in range(len(rows[0])):
        heading = header[number] if header else ""
        table.add_column(heading, style="dim" if number == 0 else "", justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table
