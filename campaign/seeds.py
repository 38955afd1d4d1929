"""Random streams and content hashes: the same words give the same stream on every machine and in
every run.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np


def content_hash(value: Any) -> str:
    """64 hexadecimal digits (SHA-256) over a JSON-like value, independent of the order of its
    keys.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def stream_key(campaign_seed: int, purpose: str, round_index: int, batch: int = 0) -> str:
    """The readable name of a random stream, recorded beside what was drawn from it."""
    return f"{campaign_seed}/{purpose}/{round_index}/{batch}"


def seed_sequence(key: str) -> np.random.SeedSequence:
    """The SeedSequence of a stream key: its parts enter as stable 64-bit hashes."""
    words = [
        int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "big") for part in key.split("/")
    ]
    return np.random.SeedSequence(words)


def generator(key: str) -> np.random.Generator:
    """NumPy's default generator on a stream."""
    return np.random.default_rng(seed_sequence(key))


@contextmanager
def library_seeds(seed: int) -> Iterator[None]:
    """Seed the libraries that keep global random state for the time of a block, then give their
    states back.

    These are random, numpy, and torch: at once where it is loaded, else as soon as the block loads
    it (an oracle without it is spared its import).
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with _torch_seed(seed) if "torch" in sys.modules else _torch_seed_on_import(seed):
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


@contextmanager
def _torch_seed_on_import(seed: int) -> Iterator[None]:
    """The same for a torch that is not there yet; afterwards its state is the one that it came
    with.
    """
    watch = _Watch(seed)
    sys.meta_path.insert(0, watch)
    try:
        yield
    finally:
        if watch in sys.meta_path:
            sys.meta_path.remove(watch)
        if watch.state is not None:
            import torch

            torch.set_rng_state(watch.state)


class _Watch(MetaPathFinder, Loader):
    """Finds torch as it is found without it, and seeds it once it is loaded. ``state``: torch's own
    before that.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._loader: Loader | None = None
        self.state: Any = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            self._loader, spec.loader = spec.loader, self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        assert self._loader is not None
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self.state = module.get_rng_state()
        module.manual_seed(self._seed)
