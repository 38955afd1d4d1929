"""Whatever happens to a file, it is read or refused by name: no other error, and no hang."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.inputs import fuzz
from benchmarks.mutations import KINDS, WHOLE, WORDS, Mutation, drawn, mutated
from campaign.crystals.extent import not_bulk
from campaign.errors import InputError
from campaign.reading.disorder import Disorder
from campaign.reading.structures import Entry, read_structures

MUTATIONS = st.builds(
    Mutation,
    st.sampled_from(KINDS),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 255),
    st.one_of(st.sampled_from(WORDS), st.text(max_size=8)),
)
ORDERED = Disorder(method="enumerate", max_atoms=8, count=2)


def read_or_refused(path: Path, disorder: Disorder | None) -> tuple[list[Entry], str]:
    try:
        return list(read_structures(path, disorder=disorder)), ""
    except InputError as error:
        return [], error.message


def check_is_read_or_refused(name: str, mutations: list[Mutation]) -> None:
    data = WHOLE[name].encode()
    for mutation in mutations:
        data = mutated(data, mutation)
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        for disorder in (None, ORDERED):
            found, refusal = read_or_refused(path, disorder)
            assert found or name in refusal
            assert all(not_bulk(entry.crystal) == "" for entry in found)


EITHER = given(st.sampled_from(sorted(WHOLE)), st.lists(MUTATIONS, min_size=1, max_size=6))
QUICK = settings(
    max_examples=300, deadline=timedelta(seconds=20), suppress_health_check=[HealthCheck.too_slow]
)
LONG = settings(QUICK, max_examples=20_000)

test_a_mutated_file_is_read_or_refused = QUICK(EITHER(check_is_read_or_refused))
test_many_mutated_files_are_read_or_refused = pytest.mark.slow(
    pytest.mark.timeout(1200)(LONG(EITHER(check_is_read_or_refused)))
)


def test_whole_files_are_read(tmp_path: Path) -> None:
    for name, text in WHOLE.items():
        (tmp_path / name).write_text(text)
        assert list(read_structures(tmp_path / name, disorder=ORDERED)), name


def test_the_benchmark_counts_every_file_once() -> None:
    (row,) = fuzz(200, seed=7)
    assert row["read"] + row["refused"] == 200
    assert row["wrong"] == []
    assert row["read"] > 10
    assert drawn(random.Random(7)) == drawn(random.Random(7))
