"""Fixtures shared by all tests."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.pop("COLUMNS", None)  # what runs tests side by side sets it, and consoles keep it
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import linear_operator.utils.warnings  # noqa: F401  # before threads that receive warnings from test processes import it, two at once
from support import HELPERS, load

from campaign.api import Campaign


@pytest.fixture(autouse=True)
def _logs_are_told() -> Iterator[None]:
    """What one test silences is heard again in the next."""
    ours = logging.getLogger("campaign")
    disabled, level = logging.root.manager.disable, ours.level
    yield
    logging.disable(disabled)
    ours.setLevel(level)


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Campaign]:
    """Makes the small campaign in a temporary folder, with changes to its config."""

    def make(name: str = "campaign", **changes: Any) -> Campaign:
        return Campaign(tmp_path / name, load(HELPERS, **changes))

    return make
