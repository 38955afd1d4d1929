"""Random streams and content hashes: the same words give the same stream on every machine and in every run."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np


def content_hash(value: Any) -> str:
    """64 hexadecimal digits (SHA-256) over a JSON-like value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def stream_key(campaign_seed: int, purpose: str, round_index: int, batch: int = 0) -> str:
    """The readable name of a random stream, recorded beside what was drawn from it."""
    return f"{campaign_seed}/{purpose}/{round_index}/{batch}"


def seed_sequence(key: str) -> np.random.SeedSequence:
    """The SeedSequence of a stream key: its parts enter as stable 64-bit hashes."""
    words = [int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "big") for part in key.split("/")]
    return np.random.SeedSequence(words)


def generator(key: str) -> np.random.Generator:
    """NumPy's default generator on a stream."""
    return np.random.default_rng(seed_sequence(key))


@contextmanager
def library_seeds(seed: int) -> Iterator[None]:
    """Seed the libraries that keep global random state for the time of a block, then give their states back.

    These are random, numpy, and torch where it is loaded (an oracle without it is spared its import).
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with _torch_seed(seed) if "torch" in sys.modules else nullcontext():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def _torch_seed(seed: int) -> Iterator[None]:
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
