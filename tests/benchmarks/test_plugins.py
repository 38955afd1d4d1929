"""The benchmarks' own oracle, as each of them asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import cluster, driving
from campaign.config import loaded

PLUGINS = Path(cluster.__file__).parent / "plugins"


@pytest.mark.parametrize(
    "document",
    [driving.document(5, "rounds", 100, 20), cluster.settings(Path("folder"))],
    ids=["driving", "cluster"],
)
def test_what_a_benchmark_runs_is_a_config(document: dict[str, Any]) -> None:
    found = loaded.validate(document, folder=PLUGINS, source=Path("benchmark.yaml"))
    assert set(found.fidelity_keys) == {"Sleeping"}
