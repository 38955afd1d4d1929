"""Random streams: the same words, the same numbers, on every machine."""

from __future__ import annotations

import random

import numpy as np
import torch

from campaign.seeds import content_hash, generator, library_seeds, seed_sequence, stream_key


def test_streams_are_stable_and_distinct() -> None:
    assert stream_key(1, "generate:random_alloy", 3) == "1/generate:random_alloy/3/0"
    assert seed_sequence("1/select/0/0").generate_state(2).tolist() == [1959431549, 2433875124]
    draws = {generator(stream_key(seed, purpose, r)).random() for seed in (1, 2) for purpose in ("a", "b") for r in (0, 1)}
    assert len(draws) == 8


def test_content_hashes_forget_the_order_of_keys() -> None:
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})


def test_library_seeds_are_scoped() -> None:
    before = (random.getstate()[1][:3], np.random.get_state()[1][:3].tolist(), torch.get_rng_state()[:8].tolist())  # type: ignore[index]
    drawn = []
    for _ in range(2):
        with library_seeds(5):
            drawn.append((random.random(), np.random.rand(), float(torch.rand(()))))
    after = (random.getstate()[1][:3], np.random.get_state()[1][:3].tolist(), torch.get_rng_state()[:8].tolist())  # type: ignore[index]
    assert drawn[0] == drawn[1]
    assert before == after
