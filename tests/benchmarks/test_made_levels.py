"""Strategies over two levels, on energies that are given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import kept_labels, made_levels
from campaign.types import Crystal

ELEMENTS = [Crystal(np.eye(3) * 3.0, np.zeros((1, 3)), np.array([z])) for z in (13, 28)]


def _pool(n: int) -> list[Crystal]:
    """Cells of one to n aluminium atoms beside one of nickel."""
    return [
        Crystal(
            np.diag([3.0, 3.0, 3.0 * (k + 1)]),
            np.array([[0.0, 0.0, place / (k + 1)] for place in range(k + 1)]),
            np.array([13] * k + [28]),
        )
        for k in range(1, n + 1)
    ]


def _energies(pool: list[Crystal], values: list[float]) -> dict[str, float]:
    known = {crystal.id: 0.0 for crystal in ELEMENTS}
    return known | {crystal.id: value for crystal, value in zip(pool, values, strict=True)}


def test_behind_a_gate_the_lowest_above_the_hull_go_first_and_what_failed_last() -> None:
    pool = _pool(4)
    below = _energies(pool, [-0.5, -0.2, -0.3, -0.1])
    del below[pool[0].id]
    by_hull = list(made_levels.behind_a_gate(pool, ELEMENTS, below, by_hull=True))
    assert by_hull == [pool[2], pool[1], pool[3], pool[0]]
    deep = _energies(pool, [-0.4, -0.39, -0.1, -0.15])
    formation = list(made_levels.behind_a_gate(pool, ELEMENTS, deep, by_hull=False))
    assert formation == [pool[0], pool[1], pool[3], pool[2]]


def test_by_gain_per_cost_each_pair_comes_once_until_the_queries_are_spent() -> None:
    pool = _pool(7)
    high = [-0.5, -0.4, -0.3, -0.2, -0.1, 0.0, 0.1]
    energies = _energies(pool, [value + 0.02 for value in high]), _energies(pool, high)
    config = made_levels.config_of(("Al", "Ni"), 0.1)
    pairs = list(
        made_levels.by_gain_per_cost(
            pool, ELEMENTS, energies, (1.0, 3.0), config, queries=5, stream="test"
        )
    )
    assert len({(crystal.id, level) for crystal, level in pairs}) == len(pairs)
    assert sum(level == made_levels.LEVELS[-1] for _, level in pairs) == 5
    assert any(level == made_levels.LEVELS[0] for _, level in pairs)


def test_what_is_kept_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_labels, "PARTS", tmp_path / "parts")
    monkeypatch.setattr(kept_labels, "FOLDER", tmp_path / "kept")
    kept_labels._kept.cache_clear()
    assert kept_labels.read("model", "one") is None
    part = kept_labels.part("model", "one")
    part.parent.mkdir(parents=True)
    part.write_text(json.dumps({"energy": -1.5}))
    kept_labels._kept.cache_clear()
    assert kept_labels.keep("model") == 1
    part.unlink()
    kept_labels._kept.cache_clear()
    assert kept_labels.read("model", "one") == {"energy": -1.5}
    kept_labels._kept.cache_clear()
