"""Checkpoints as safetensors: named arrays, with metrics and facts as JSON in the header. Nothing
in them is a pickle.
"""

from __future__ import annotations

import json

from campaign.types import Checkpoint


def checkpoint_to_bytes(checkpoint: Checkpoint) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    tensors = {name: np.asarray(tensor, order="C") for name, tensor in checkpoint.tensors.items()}
    metadata = {
        "metrics": json.dumps(dict(checkpoint.metrics), sort_keys=True),
        "facts": json.dumps(dict(checkpoint.facts), sort_keys=True),
    }
    return bytes(save(tensors, metadata=metadata))


def checkpoint_from_bytes(data: bytes) -> Checkpoint:
    from safetensors.numpy import load

    return Checkpoint(
        tensors=load(data),
        metrics=json.loads(_header(data).get("metrics", "{}")),
        facts=facts_of(data),
    )


def facts_of(data: bytes) -> dict[str, str]:
    """What a checkpoint tells of itself, without its arrays."""
    found: dict[str, str] = json.loads(_header(data).get("facts", "{}"))
    return found


def _header(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    found: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return found
