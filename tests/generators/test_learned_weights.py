"""What learned generators share: weights to start from, and networks as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from campaign import plugins
from campaign.errors import InputError
from campaign.protocols import PluginSpec
from campaign.types import Checkpoint
from generators.networks.checkpoints import arrays_of, kind_of, load_arrays

LEARNED = ("pcdvae", "flow_matching", "diffusion", "regression_modifier", "cvae", "tabular_vae")
PARAMS: dict[str, Any] = {
    name: {"target": {"prototypes": ["graphite"]}} for name in ("cvae", "tabular_vae")
}


def test_a_network_comes_back_from_its_arrays_ready_to_be_used() -> None:
    made, other = nn.Linear(2, 3), nn.Linear(2, 3)
    arrays = arrays_of(made, "weights.")
    assert set(arrays) == {"weights.weight", "weights.bias"}
    load_arrays(other, {**arrays, "crystals": np.zeros(2)}, "this", "weights.")
    x = torch.ones(1, 2)
    assert torch.equal(made(x), other(x))
    assert not other.training
    assert made.training
    with pytest.raises(InputError, match="the weights do not fit this"):
        load_arrays(nn.Linear(3, 3), arrays, "this", "weights.")


def test_another_kind_is_refused_with_the_command_that_writes_the_right_one() -> None:
    assert kind_of(Checkpoint(tensors={}, facts={"kind": "b"}), "a", "b", command="train") == "b"
    for facts, kind in (({"kind": "c"}, "c"), ({}, "none")):
        with pytest.raises(InputError, match=f"expected weights of kind a or b, got kind {kind}"):
            kind_of(Checkpoint(tensors={}, facts=facts), "a", "b", command="train")


@pytest.mark.parametrize("name", LEARNED)
def test_weights_that_are_missing_are_told_before_anything_runs(tmp_path: Path, name: str) -> None:
    spec = PluginSpec(
        group="generators",
        use=name,
        params={**PARAMS.get(name, {}), "weights": "nowhere.safetensors"},
        module_folder=str(tmp_path),
        elements=("Ni", "Al"),
    )
    with pytest.raises(InputError, match=r"expected weights at .*nowhere.safetensors"):
        plugins.build(spec)
