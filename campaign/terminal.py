"""What is printed for a person: strings are shown as they are, never read as markup, and always fit the terminal's encoding.

Style is given by ``rich.text.Text`` or ``style=``, so that a message cannot bring its own.
"""

from __future__ import annotations

import logging
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from campaign.text import shown


class PlainConsole(Console):
    """A console that every string passes through: control characters and what the encoding lacks are written as escapes."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

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
        super().__init__(console=console, show_path=False, show_level=True, log_time_format="%H:%M:%S", markup=False)
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
