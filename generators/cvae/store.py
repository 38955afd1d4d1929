"""A trained tabular generator as a checkpoint: weights, the mixture, what it learned from. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch

from campaign.errors import InputError
from campaign.types import Checkpoint, FloatArray
from generators.cvae.mixture import Mixture
from generators.cvae.model import Categories, Sizes, TabularVAE
from generators.cvae.table import MOST_SITES, TabularCrystal, to_row

KIND = "tabular_vae"


def to_checkpoint(model: TabularVAE, tables: Sequence[TabularCrystal], metrics: Mapping[str, float]) -> Checkpoint:
    """``tables``: the distinct crystals that it learned from, before they were described in many ways."""
    rows, numbers = rows_of(tables)
    facts = {
        "kind": KIND,
        "sizes": json.dumps(asdict(model.sizes)),
        "form": model.form,
        "is_conditional": json.dumps(model.is_conditional),
        "species": json.dumps(model.species),
        "categories": json.dumps(model.categories.values),
        "data": hashlib.sha256(rows.tobytes() + numbers.tobytes()).hexdigest(),
    }
    tensors = {f"weights.{name}": value.detach().cpu().numpy().copy() for name, value in model.state_dict().items()}
    mixture = model.mixture
    tensors |= {"mixture.means": mixture.means, "mixture.spreads": mixture.spreads, "mixture.weights": mixture.weights}
    return Checkpoint(tensors={**tensors, "crystals": rows, "numbers": numbers}, metrics=dict(metrics), facts=facts)


def from_checkpoint(checkpoint: Checkpoint) -> tuple[TabularVAE, list[TabularCrystal]]:
    """The model and the crystals that it learned from. Raises InputError on a checkpoint of another kind, or with other arrays."""
    facts, tensors = checkpoint.facts, checkpoint.tensors
    if facts.get("kind") != KIND:
        raise InputError(
            f"expected weights of kind {KIND}, got kind {facts.get('kind', 'none')}", hint="give a file that `oreloop train cvae` wrote"
        )
    try:
        mixture = Mixture(tensors["mixture.means"], tensors["mixture.spreads"], tensors["mixture.weights"])
        categories = Categories(tuple(tuple(values) for values in json.loads(facts["categories"])))
        model = TabularVAE(
            mixture,
            categories,
            tuple(json.loads(facts["species"])),
            Sizes(**json.loads(facts["sizes"])),
            "published" if facts["form"] == "published" else "better",
            is_conditional=json.loads(facts["is_conditional"]),
        )
        prefix = "weights."
        model.load_state_dict(
            {name.removeprefix(prefix): torch.from_numpy(np.array(value)) for name, value in tensors.items() if name.startswith(prefix)}
        )
    except (KeyError, RuntimeError) as error:
        raise InputError(f"the weights do not fit their own description: {error}") from error
    model.eval()
    return model, tables_of(tensors["crystals"], tensors["numbers"])


def rows_of(tables: Sequence[TabularCrystal]) -> tuple[FloatArray, FloatArray]:
    """(n, 39) columns and (n, 8) atomic numbers, 0 where there is no site."""
    numbers = np.zeros((len(tables), MOST_SITES))
    for row, table in enumerate(tables):
        numbers[row, : len(table.numbers)] = table.numbers
    return np.array([to_row(table) for table in tables]).reshape(len(tables), -1), numbers


def tables_of(rows: FloatArray, numbers: FloatArray) -> list[TabularCrystal]:
    """The inverse of ``rows_of``."""
    found = []
    for row, elements in zip(rows, numbers, strict=True):
        sites = [k for k in range(MOST_SITES) if elements[k] > 0]
        parts = row[7:].reshape(MOST_SITES, 4)
        found.append(
            TabularCrystal(
                round(row[0]),
                tuple(float(value) for value in row[1:7]),
                tuple(round(parts[k, 0]) for k in sites),
                tuple((float(parts[k, 1]), float(parts[k, 2]), float(parts[k, 3])) for k in sites),
                tuple(round(elements[k]) for k in sites),
            )
        )
    return found
