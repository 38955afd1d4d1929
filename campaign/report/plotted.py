"""Figures as parts of a page. Names and messages in them are shown as they are: plotly reads tags
in its texts, so these are escaped.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from markupsafe import escape

from campaign.text import shown

_WORDS = frozenset({"text", "hovertext", "name", "label", "x", "y", "theta", "labels", "ticktext"})
"""Keys of a figure under which strings are shown to people."""
_BREAK = "<br>"


def html(figure: go.Figure | None, *, whole: bool = False) -> str:
    """A figure as a part of a page that has the plots' library, or as a ``whole`` page; empty
    without one.
    """
    if figure is None:
        return ""
    plain = go.Figure(_plain(figure.to_dict()), skip_invalid=True)
    found: str = plain.to_html(
        full_html=whole, include_plotlyjs=whole, config={"responsive": True, "displaylogo": False}
    )
    return found


def _plain(value: Any, key: str = "") -> Any:
    if isinstance(value, str):
        return word(value) if key in _WORDS else value
    if isinstance(value, dict):
        return {
            name: item if name == "template" else _plain(item, name) for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, key) for item in value]
    return value


def word(text: str) -> str:
    """Escaped for plotly; a line's break, which does no harm, stays one."""
    return str(escape(shown(text.replace(_BREAK, "\n")))).replace("\n", _BREAK)
