"""The committed figures: every summary follows from its raw rows."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "results"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_summaries_follow_from_the_raw_rows(path: Path) -> None:
    document = json.loads(path.read_text())
    module = importlib.import_module(f"benchmarks.{document['name']}")
    assert json.loads(json.dumps(module.summarise(document["rows"]))) == document["summary"]
    assert document["versions"]["oreloop"]
    assert document["command"] == f"python -m benchmarks.{path.stem}"
