"""What learned generators share beside their networks: weights to start from, and a network as the
arrays of a checkpoint. Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from campaign.checkpoints import checkpoint_from_bytes
from campaign.errors import InputError
from campaign.protocols import GenerationContext
from campaign.types import Checkpoint


class HasWeights(Protocol):
    @property
    def weights(self) -> Path | None: ...


class Starting:
    """A generator whose ``config`` may name weights that it starts from."""

    config: Any

    def __init__(self, config: HasWeights) -> None:
        if config.weights is not None:
            check_weights(config.weights)
        self.config = config

    def _checkpoint(self, context: GenerationContext) -> Checkpoint | None:
        """The campaign's own, and before there is one that of the config."""
        weights: Path | None = self.config.weights
        if context.checkpoint is None and weights is not None:
            return checkpoint_from_bytes(weights.read_bytes())
        return context.checkpoint


def check_weights(path: Path) -> None:
    """Raises InputError where there is no such file."""
    if not path.is_file():
        raise InputError(
            f"expected weights at {path}, found no file",
            hint="write them with `oreloop train`",
        )


def kind_of(checkpoint: Checkpoint, *kinds: str, command: str) -> str:
    """The kind of a checkpoint. Raises InputError where it is none of those, which ``command``
    writes.
    """
    kind = checkpoint.facts.get("kind", "none")
    if kind not in kinds:
        raise InputError(
            f"expected weights of kind {' or '.join(kinds)}, got kind {kind}",
            hint=f"give a file that `{command}` wrote",
        )
    return kind


def arrays_of(network: nn.Module, prefix: str = "") -> dict[str, NDArray[Any]]:
    """A network's state as arrays, their names behind a prefix."""
    return {
        f"{prefix}{name}": value.detach().cpu().numpy().copy()
        for name, value in network.state_dict().items()
    }


def load_arrays(
    network: nn.Module, arrays: Mapping[str, NDArray[Any]], what: str, prefix: str = ""
) -> None:
    """The inverse of ``arrays_of``, ready to be used. Raises InputError where the arrays are not
    those of the network; ``what`` it was made by, for the message.
    """
    state = {
        name.removeprefix(prefix): torch.from_numpy(np.array(value))
        for name, value in arrays.items()
        if name.startswith(prefix)
    }
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"the weights do not fit {what}: {error}") from error
    network.eval()
