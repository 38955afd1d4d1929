"""The benchmark of peers: one search for all, labels counted alike, and what is absent said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers, peers_worker


def hill(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).random((n, 3))
    return x, -np.square(x - 0.6).sum(1)


def test_a_search_ends_with_the_first_of_the_best() -> None:
    labelled = peers_worker.search(
        lambda known, n: [max(known) + 1 + i for i in range(n)], [0, 1], 3, 50, {6}
    )
    assert labelled == [0, 1, 2, 3, 4, 5, 6, 7]
    assert peers_worker.search(lambda known, n: [max(known) + 1], [0], 1, 4, {99}) == [0, 1, 2, 3]
    assert peers_worker.search(lambda known, n: [5], [3, 6], 1, 50, {6}) == [3, 6]


@pytest.mark.parametrize("chosen", [[0], [2, 2], []])
def test_a_choice_that_is_none_is_refused(chosen: list[int]) -> None:
    with pytest.raises(ValueError, match="rows that are not labelled"):
        peers_worker.search(lambda known, n: chosen, [0, 1], 2, 10, {9})


def test_ours_finds_a_hill_sooner_than_chance() -> None:
    x, gain = hill()
    first = np.argsort(gain)[:10].tolist()
    best = {int(gain.argmax())}
    labelled = peers_worker.search(peers.ours(x, gain, 0), first, 5, 60, best)
    assert len(labelled) <= 25
    assert labelled == peers_worker.search(peers.ours(x, gain, 0), first, 5, 60, best)


def test_peers_that_are_not_installed_are_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert peers.present(tmp_path / "python") == ([], ["baybe", "ax", "bofire", "physbo"])
    monkeypatch.setitem(peers_worker.DISTRIBUTIONS, "baybe", "no-such-distribution")
    monkeypatch.setattr(sys, "argv", ["peers_worker.py", "baybe"])
    peers_worker.main()
    assert json.loads(capsys.readouterr().out) == {"absent": "baybe"}


def test_no_run_begins_with_one_of_the_best() -> None:
    _, gain = hill()
    target = peers.target_of(gain)
    for seed in range(20):
        rows = peers.first_rows(gain, target, seed)
        assert len(set(rows)) == 10
        assert gain[rows].max() < target
    assert peers.first_rows(gain, target, 3) == peers.first_rows(gain, target, 3)


def test_rows_that_descriptors_cannot_tell_apart_are_one() -> None:
    x, _ = hill(6)
    twice = np.concatenate([x[:4], x[:2] + 1e-12, x[4:]])
    assert peers.distinct(twice).tolist() == [0, 1, 2, 3, 6, 7]


def test_the_tuning_sees_half_of_the_tables() -> None:
    assert len(peers.TUNING) * 2 == len(peers.TABLES)


def test_a_run_that_misses_counts_as_the_most_labels() -> None:
    runs = [
        {
            "table": "t",
            "strategy": name,
            "seed": seed,
            "labels": labels,
            "cpu_seconds": 1.0,
            "decisions": 2,
        }
        for name, found in (("oreloop", (20, 40)), ("random", (None, 100)), ("ax", (45, 45)))
        for seed, labels in enumerate(found)
    ]
    summary = peers.summarise({"runs": runs, "absent": [{"peers": ["baybe"]}]})
    assert summary["t: labels to the best 1 %, random"] == 150
    assert summary["peers that are absent"] == "baybe"
    best = summary["tables that are new to the tuning (1): labels of the best peer over ours"]
    assert best["measured"] == pytest.approx(1.5)
    assert best["verdict"] == "met"
    assert json.loads(json.dumps(summary)) == summary
