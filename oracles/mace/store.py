"""Committees of networks as checkpoints: weights by name, and in words what they belong to. Nothing
in them is a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from campaign.checkpoints import checkpoint_from_bytes
from campaign.errors import InputError
from campaign.types import Checkpoint
from oracles.mace import network as networks
from oracles.mace.files import sha256_of
from oracles.mace.network import ArchitectureConfig, Scales

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Origin:
    """What a network was before it was trained: made from an architecture, or a foundation model
    named by path and hash.
    """

    architecture: ArchitectureConfig | None = None
    scales: Scales | None = None
    foundation: str = ""
    foundation_sha256: str = ""

    def blank(self, seed: int) -> torch.nn.Module:
        """The network at its start. Raises InputError where the foundation model is not the one it
        was.
        """
        if self.architecture is not None and self.scales is not None:
            return networks.build(self.architecture, self.scales, seed)
        path = Path(self.foundation)
        if sha256_of(path) != self.foundation_sha256:
            raise InputError(
                f"the foundation model {path} is not the one that this model was trained from",
                hint="restore the file",
            )
        return networks.read(path.read_bytes(), "cpu")


def to_checkpoint(
    members: Sequence[torch.nn.Module], origin: Origin, metrics: dict[str, float]
) -> Checkpoint:
    tensors = {
        f"{i}/{name}": tensor.detach().cpu().numpy().copy()
        for i, member in enumerate(members)
        for name, tensor in member.state_dict().items()
    }
    facts = {
        "kind": "mace committee",
        "members": str(len(members)),
        "architecture": json.dumps(
            origin.architecture.model_dump(mode="json") if origin.architecture else None
        ),
        "scales": json.dumps(asdict(origin.scales) if origin.scales else None),
        "foundation": origin.foundation,
        "foundation_sha256": origin.foundation_sha256,
    }
    return Checkpoint(tensors=tensors, metrics=metrics, facts=facts)


def origin_of(checkpoint: Checkpoint) -> Origin:
    facts = checkpoint.facts
    if facts.get("kind") != "mace committee":
        raise InputError(
            "expected a MACE committee, but this checkpoint is "
            f"{facts.get('kind', 'of another kind')}"
        )
    architecture, scales = json.loads(facts["architecture"]), json.loads(facts["scales"])
    return Origin(
        architecture=ArchitectureConfig(**architecture) if architecture else None,
        scales=_scales(scales) if scales else None,
        foundation=facts["foundation"],
        foundation_sha256=facts["foundation_sha256"],
    )


def _scales(data: dict[str, Any]) -> Scales:
    return Scales(
        **{
            **data,
            "numbers": tuple(data["numbers"]),
            "element_energies": tuple(data["element_energies"]),
        }
    )


def members_of(checkpoint: Checkpoint) -> list[torch.nn.Module]:
    """The networks of a checkpoint."""
    origin = origin_of(checkpoint)
    found = []
    for i in range(int(checkpoint.facts["members"])):
        member = origin.blank(0)
        prefix = f"{i}/"
        state = {
            name.removeprefix(prefix): torch.from_numpy(np.array(tensor))
            for name, tensor in checkpoint.tensors.items()
            if name.startswith(prefix)
        }
        member.load_state_dict(state)
        found.append(member)
    return found


def read_models(path: Path, device: str) -> tuple[list[torch.nn.Module], str]:
    """The networks in a file, MACE's own kind or a committee of ours, and its SHA-256. Raises
    InputError where it cannot be read.
    """
    sha256 = sha256_of(path)
    data = path.read_bytes()
    try:
        members = (
            members_of(checkpoint_from_bytes(data))
            if path.suffix == SUFFIX
            else [networks.read(data, device)]
        )
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path} is no MACE model: {type(error).__name__}: {error}",
            hint="give a MACE file or a .safetensors of `oreloop train mace`",
        ) from error
    return [member.to(device) for member in members], sha256


def numbers_in(path: Path) -> list[int]:
    """Atomic numbers that the model in a file knows."""
    members, _ = read_models(path, "cpu")
    return sorted(set.intersection(*(set(networks.numbers_of(member)) for member in members)))
