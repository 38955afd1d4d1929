"""What is printed for a person: strings are shown as they are, never read as markup, and always fit
the terminal's encoding.

Style is given by ``rich.text.Text`` or ``style=``, so that a message cannot bring its own. Nothing
in a table is cut: what has to be copied, such as a candidate's id, stays on one line.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleDimensions
from rich.logging import RichHandler
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from campaign.text import shown

log = logging.getLogger(__name__)

_LINE_SECONDS = 60.0
_COPIED = frozenset({"candidate", "folder"})
"""Headings of columns whose cells people copy."""
_UNBROKEN = 10_000
"""Width of what is written to a file or a pipe, where nothing has to be broken; ``COLUMNS`` sets
another.
"""


class PlainConsole(Console):
    """A console that every string passes through: control characters and what the encoding lacks
    are written as escapes.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    @property
    def size(self) -> ConsoleDimensions:
        """As wide as the terminal; what is written to a file or a pipe is not broken."""
        found = super().size
        is_paper = not self.stderr and not self.is_terminal and "COLUMNS" not in os.environ
        return ConsoleDimensions(_UNBROKEN, found.height) if is_paper else found

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        self.width, self.height = new

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(
            *(self._whole(item) if isinstance(item, Table) else item for item in objects), **options
        )

    def _whole(self, table: Table) -> Table:
        """The table so that nothing is cut: cells are broken, and rows stand one below the other
        where even that does not fit.
        """
        for column in table.columns:
            column.overflow = "fold"
            column.no_wrap = column.no_wrap or column.header in _COPIED
        if (
            not table.show_header
            or Measurement.get(self, self.options.update(width=_UNBROKEN), table).minimum
            <= self.width
        ):
            return table
        rows = Table.grid(
            Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2), expand=False
        )
        rows.title, rows.title_justify = table.title, "left"
        for cells in zip(*(column.cells for column in table.columns), strict=True):
            for column, cell in zip(table.columns, cells, strict=True):
                rows.add_row(column.header, cell)
            rows.add_row("", "")
        return rows

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(self.plain(text), **{**options, "markup": False, "emoji": False})

    def plain(self, text: str) -> str:
        """As it is shown."""
        return shown(text).encode(self.encoding, "backslashreplace").decode(self.encoding)

    def styled(self, text: str, style: str) -> Text:
        """Text in one style."""
        return Text(self.plain(text), style=style)


class PlainHandler(RichHandler):
    """Log messages under the same rule."""

    def __init__(self, console: PlainConsole) -> None:
        super().__init__(
            console=console,
            show_path=False,
            show_level=True,
            log_time_format="%H:%M:%S",
            markup=False,
        )
        self._plain = console.plain

    def render_message(self, record: logging.LogRecord, message: str) -> Any:
        return super().render_message(record, self._plain(message))


class _PlainColumn(TextColumn):
    def __init__(self, console: PlainConsole) -> None:
        super().__init__("{task.description}", markup=False)
        self._plain = console.plain

    def render(self, task: Any) -> Text:
        return Text(self._plain(str(task.description)))


def progress(console: PlainConsole) -> Progress:
    """A progress bar that is gone when it is done."""
    columns = (_PlainColumn(console), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


@contextmanager
def steps(console: PlainConsole, title: str) -> Iterator[Callable[[str], None]]:
    """Tell what is being done: a line that changes, with the time it takes, at a terminal;
    elsewhere a log line a minute at most.
    """
    if console.is_terminal:
        columns = (SpinnerColumn(), _PlainColumn(console), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title)
            yield lambda step: bar.reset(task, description=f"{title}: {step}")
        return
    told = time.monotonic()

    def tell(step: str) -> None:
        nonlocal told
        if time.monotonic() - told >= _LINE_SECONDS:
            told = time.monotonic()
            log.info("%s: %s", title, step)

    yield tell
