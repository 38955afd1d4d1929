"""What crosses between processes: it comes out as it went in, nothing that runs crosses, and half a
message is none.
"""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaign.errors import InputError, OreloopError, SurroundingsError
from campaign.executors import wire
from campaign.plugins import ParameterError
from campaign.protocols import EvaluationJob, OracleSpec, PluginSpec
from campaign.types import Candidate, Cost, Crystal, Evaluation, Failure, FailureKind, Observation

CRYSTAL = Crystal(np.eye(3) * 4.1, [[0, 0, 0], [0.5, 0.5, 0.1]], [28, 26])
PLUGIN = PluginSpec(
    group="oracles",
    use="m:C",
    params={"a": {"b": (1, 2.5)}, 3: None},
    elements=("Ni",),
    python=("env", "python"),
)
WORDS = [
    OracleSpec(name="one", plugin=PLUGIN, wall_limit=math.inf, sanity={"e": (-math.inf, 1.0)}),
    EvaluationJob(
        key="k",
        oracle="one",
        candidate=Candidate(CRYSTAL),
        softer={"strain": 1e-3},
        start=CRYSTAL,
        committee=b"\0\1",
    ),
    Evaluation(
        observations=(Observation("energy_per_atom", -1.25, "eV/atom", 0.5),),
        crystal=CRYSTAL,
        artifacts={"log": b"text"},
        cost=Cost(wall_seconds=1.0, worker="w"),
        fidelity="f",
    ),
    Evaluation(failure=Failure(FailureKind.TIMEOUT, "late \udc80", retryable=False)),
]

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=20,
)


@given(values)
def test_plain_data_comes_out_as_it_went_in(value: Any) -> None:
    assert wire.unpack(wire.pack(value)) == value


@pytest.mark.parametrize("word", WORDS, ids=lambda word: type(word).__name__)
def test_words_come_out_as_they_went_in(word: Any) -> None:
    found = wire.unpack(wire.pack(word))
    assert found == word
    assert type(found) is type(word)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1", "?", ">f8"])
def test_arrays_keep_shape_kind_and_order(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4)[::-1].T.astype(dtype)
    found = wire.unpack(wire.pack({"forces": array}))["forces"]
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert found.flags.writeable
    number = wire.unpack(wire.pack(array[1, 2]))
    assert number == array[1, 2]
    assert math.isnan(wire.unpack(wire.pack(float("nan"))))
    assert wire.unpack(wire.pack(PurePath("a/b"))) == PurePath("a/b")


class _OfAnotherError(SurroundingsError):
    """A class that the other side may not know."""


def test_errors_keep_what_they_say_and_their_kind_as_far_as_it_is_known() -> None:
    error = ParameterError("lammps", [(("strain",), "too large")], ("strain", "relax"))
    found = wire.unpack(wire.pack(error))
    assert type(found) is ParameterError
    assert (found.message, found.hint, found.problems, found.known) == (
        error.message,
        error.hint,
        error.problems,
        error.known,
    )
    message = wire.pack(_OfAnotherError("gone", hint="bring it back"))
    assert type(wire.unpack(message)) is _OfAnotherError
    nearest = wire.unpack(message.replace(b"_OfAnotherError", b"_OfNobodysError"))
    assert type(nearest) is SurroundingsError
    assert (nearest.message, nearest.hint, nearest.exit_code) == (
        "gone",
        "bring it back",
        SurroundingsError.exit_code,
    )
    assert isinstance(wire.unpack(wire.pack(InputError("no"))), OreloopError)


@pytest.mark.parametrize(
    "value",
    [object(), len, {"a": {1, 2}}, np.array([object()]), [ValueError("no")]],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_plain_data_does_not_cross(value: Any) -> None:
    with pytest.raises(TypeError, match="no plain data"):
        wire.pack(value)


def test_half_a_message_is_none() -> None:
    whole = wire.pack(WORDS[1])
    for length in range(len(whole)):
        with pytest.raises(ValueError):
            wire.unpack(whole[:length])
