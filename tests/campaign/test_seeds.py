"""Random streams: the same words, the same numbers, on every machine."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from campaign.seeds import content_hash, generator, library_seeds, seed_sequence, stream_key


def test_streams_are_stable_and_distinct() -> None:
    assert stream_key(1, "generate:random_alloy", 3) == "1/generate:random_alloy/3/0"
    assert seed_sequence("1/select/0/0").generate_state(2).tolist() == [1959431549, 2433875124]
    draws = {
        generator(stream_key(seed, purpose, r)).random()
        for seed in (1, 2)
        for purpose in ("a", "b")
        for r in (0, 1)
    }
    assert len(draws) == 8


def test_content_hashes_forget_the_order_of_keys() -> None:
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})


def test_library_seeds_are_scoped() -> None:
    before = (
        random.getstate()[1][:3],
        np.random.get_state()[1][:3].tolist(),
        torch.get_rng_state()[:8].tolist(),
    )  # type: ignore[index]
    drawn = []
    for _ in range(2):
        with library_seeds(5):
            drawn.append((random.random(), np.random.rand(), float(torch.rand(()))))
    after = (
        random.getstate()[1][:3],
        np.random.get_state()[1][:3].tolist(),
        torch.get_rng_state()[:8].tolist(),
    )  # type: ignore[index]
    assert drawn[0] == drawn[1]
    assert before == after


FRESH = """
import json, sys
from campaign.seeds import library_seeds
assert "torch" not in sys.modules
seen = []
for seed in (5, 5, 6):
    with library_seeds(seed):
        import torch
        seen.append(float(torch.rand(())))
assert type(torch.__spec__.loader).__module__ != "campaign.seeds"
print(json.dumps([seen, float(torch.rand(()))]))
"""


def test_what_a_block_loads_first_is_seeded_as_what_was_loaded() -> None:
    """The first fit of a process loads torch: it is the fit that a process has where torch is
    loaded.
    """
    done = subprocess.run(
        [sys.executable, "-c", FRESH],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    (first, again, other), after = json.loads(done.stdout)
    with library_seeds(5):
        here, following = torch.rand(2).tolist()
    assert first == again == here
    assert other != first
    assert after != following, "torch's own state is the one that it came with"


FIT = """
import json, sys
import numpy as np
from campaign.crystals.lattice import supercell
from campaign.ledger.dataset import Dataset
from campaign.decide.fit import FitRequest, fit
from campaign.protocols import PluginSpec
from campaign.types import Candidate, LabelledCandidate
if sys.argv[1] == "warm":
    import torch
rng = np.random.default_rng(0)
crystals = [supercell("bcc", (2, 1, 1), rng.permutation(["Ni"] * k + ["Fe"] * (4 - k)).tolist()) for k in (0, 1, 2, 3, 4)]
labelled = tuple(LabelledCandidate(candidate=Candidate(c), values={"energy_per_atom": float(i)}) for i, c in enumerate(crystals))
asked = FitRequest(
    surrogate=PluginSpec(group="surrogates", use="ensemble", params={"members": 2, "steps": 20}, elements=("Fe", "Ni")),
    classifier=None, quantities=("energy_per_atom",), previous=None, stream=sys.argv[2],
)
fitted = fit(asked, {"lj": Dataset(labelled)}).value.fitted
print(json.dumps(fitted.posterior([item.candidate for item in labelled]).mean.flatten().tolist()))
"""  # noqa: E501


def test_a_first_fit_is_the_fit_of_any_process() -> None:
    def fitted(*words: str) -> list[float]:
        done = subprocess.run(
            [sys.executable, "-c", FIT, *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        return list(json.loads(done.stdout))

    assert (
        fitted("fresh", "1/fit/0/0") == fitted("warm", "1/fit/0/0") != fitted("fresh", "2/fit/0/0")
    )
