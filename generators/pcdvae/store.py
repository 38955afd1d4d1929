"""Trained P-CDVAE weights as a checkpoint: arrays, and what they were made for and of as readable
facts. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from ase.data import chemical_symbols

from campaign.errors import InputError
from campaign.types import Checkpoint
from generators.networks.checkpoints import arrays_of, kind_of, load_arrays
from generators.pcdvae.model import PCDVAE, PRESETS, Noise, Shape
from generators.pcdvae.train import Example

KIND = "pcdvae"


@dataclass(frozen=True)
class Tables:
    """What the columns of the weights mean: the elements that were trained on, the phases by index,
    the properties by output.
    """

    elements: tuple[str, ...]
    phases: tuple[str, ...]
    properties: tuple[str, ...]


def to_checkpoint(
    model: PCDVAE, tables: Tables, data_hash: str, metrics: Mapping[str, float]
) -> Checkpoint:
    facts = {
        "kind": KIND,
        "preset": model.preset,
        "shape": json.dumps(asdict(model.shape)),
        "noise": json.dumps(asdict(model.noise)),
        "tables": json.dumps(asdict(tables)),
        "data": data_hash,
    }
    return Checkpoint(tensors=arrays_of(model), metrics=dict(metrics), facts=facts)


def from_checkpoint(checkpoint: Checkpoint) -> tuple[PCDVAE, Tables]:
    """Raises InputError on a checkpoint of another kind, or on one whose arrays are not those of
    its facts.
    """
    facts = checkpoint.facts
    kind_of(checkpoint, KIND, command="oreloop train pcdvae")
    if facts["preset"] not in PRESETS:
        raise InputError(
            f"expected weights of preset {' or '.join(PRESETS)}, got {facts['preset']!r}"
        )
    noise = json.loads(facts["noise"])
    noise = Noise(noise["levels"], tuple(noise["position"]), tuple(noise["element"]))
    model = PCDVAE(facts["preset"], Shape(**json.loads(facts["shape"])), noise)
    load_arrays(model, checkpoint.tensors, f"preset {facts['preset']}")
    tables = {name: tuple(values) for name, values in json.loads(facts["tables"]).items()}
    return model, Tables(**tables)


def tables_of(
    examples: Sequence[Example], phases: Sequence[str], properties: Sequence[str]
) -> Tables:
    numbers = np.unique(np.concatenate([example.crystal.numbers for example in examples]))
    return Tables(
        tuple(chemical_symbols[number] for number in numbers), tuple(phases), tuple(properties)
    )


def hash_of(examples: Sequence[Example]) -> str:
    """SHA-256 over crystals, properties and phases."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(
            f"{example.crystal.id} {example.phase} {np.asarray(example.properties).tolist()};".encode()  # noqa: E501
        )
    return digest.hexdigest()
