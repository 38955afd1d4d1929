"""Rows of many crystals that are kept on disk are those that the embedder makes, whatever happened
to the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from campaign.parameters import PluginParameter
from campaign.types import Crystal, FloatArray
from surrogates.descriptors import describer, kept
from surrogates.descriptors.composition import CompositionEmbedder

ELEMENTS = ("Cr", "Fe", "Ni")


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(describer, "_MANY", 8)
    monkeypatch.setattr(kept, "_LEAST_ROWS", 4)
    kept.kept_rows.cache_clear()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many crystals the embedder was asked for, call by call."""
    calls: list[int] = []
    plain = CompositionEmbedder.embed

    def counted(crystals: Sequence[Crystal], elements: Sequence[str]) -> FloatArray:
        calls.append(len(crystals))
        return plain(crystals, elements)

    monkeypatch.setattr(CompositionEmbedder, "embed", staticmethod(counted))
    return calls


def crystals_of(n: int, seed: int = 1) -> list[Crystal]:
    rng = np.random.default_rng(seed)
    return [
        Crystal(3.0 * np.eye(3), rng.random((6, 3)), rng.choice([24, 26, 28], size=6))
        for _ in range(n)
    ]


def described(crystals: Sequence[Crystal]) -> FloatArray:
    return describer.Describer([PluginParameter(use="composition")], ELEMENTS).describe(crystals)


def anew(crystals: Sequence[Crystal]) -> FloatArray:
    """One by one, so that nothing is kept."""
    return np.vstack([described([crystal]) for crystal in crystals])


def in_a_new_process() -> None:
    kept.kept_rows.cache_clear()


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.npy"))


def test_a_pool_is_described_once(asked: list[int], tmp_path: Path) -> None:
    crystals = crystals_of(30)
    first = described(crystals)
    assert asked == [30]
    in_a_new_process()
    asked.clear()
    rng = np.random.default_rng(2)
    mixed = [*(crystals[i] for i in rng.permutation(30)[:25]), *crystals_of(5, seed=3), crystals[0]]
    rows = described(mixed)
    assert asked == [1, 5]
    assert np.array_equal(rows, anew(mixed))
    assert np.array_equal(described(crystals), first)
    assert len(files(tmp_path)) == 2
    assert list(tmp_path.rglob(".*")) == []


def test_rows_of_other_code_are_not_believed(
    asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crystals = crystals_of(20)
    first = described(crystals)
    in_a_new_process()
    counted = CompositionEmbedder.embed
    monkeypatch.setattr(
        CompositionEmbedder,
        "embed",
        staticmethod(lambda crystals, elements: 2 * counted(crystals, elements)),
    )
    asked.clear()
    assert np.array_equal(described(crystals), 2 * first)
    assert asked == [1, 20]
    in_a_new_process()
    assert np.array_equal(described(crystals), 2 * first)
    assert asked == [1, 20, 1]


@pytest.mark.parametrize("left", [0, 40, -100])
def test_what_was_cut_off_is_as_if_it_were_not_there(
    asked: list[int], tmp_path: Path, left: int
) -> None:
    crystals = crystals_of(20)
    first = described(crystals)
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:left])
    in_a_new_process()
    assert np.array_equal(described(crystals), first)
    in_a_new_process()
    asked.clear()
    assert np.array_equal(described(crystals), first)
    assert asked == [1]


def test_a_disk_that_takes_nothing_costs_time_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crystals = crystals_of(20)
    (tmp_path / "oreloop").write_text("a file where the folder would be")
    assert np.array_equal(described(crystals), anew(crystals))
    assert "not kept on disk" in caplog.text


def test_the_oldest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described(crystals_of(20, seed=1))
    (oldest,) = files(tmp_path)
    monkeypatch.setattr(kept, "_MOST_BYTES", 2 * oldest.stat().st_size)
    for seed in (2, 3, 4):
        described(crystals_of(20, seed=seed))
    assert oldest not in files(tmp_path)
    assert sum(path.stat().st_size for path in files(tmp_path)) <= kept._MOST_BYTES
    assert np.array_equal(described(crystals_of(20, seed=1)), anew(crystals_of(20, seed=1)))
