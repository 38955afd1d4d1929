"""Checkpoints come back from their bytes as they were."""

from __future__ import annotations

import numpy as np
import pytest

from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
from campaign.types import Checkpoint

TENSORS = {
    "a number": np.array(2.5),
    "a whole number": np.array(7, dtype=np.int64),
    "a truth": np.array(True),
    "none": np.zeros((0, 3)),
    "a row": np.arange(4, dtype=np.float32),
    "by columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "every other": np.arange(8)[::2],
    "turned": np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1),
    "of the other order": np.arange(3, dtype=">f8"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_arrays_of_every_shape_come_back(name: str) -> None:
    kept = Checkpoint(tensors={name: TENSORS[name]}, metrics={"loss": 0.5}, facts={"kind": "test"})
    found = checkpoint_from_bytes(checkpoint_to_bytes(kept))
    assert found.tensors[name].shape == TENSORS[name].shape
    assert found.tensors[name].dtype == TENSORS[name].dtype.newbyteorder("=")
    np.testing.assert_array_equal(found.tensors[name], TENSORS[name])
    assert (found.metrics, found.facts) == (kept.metrics, kept.facts)
