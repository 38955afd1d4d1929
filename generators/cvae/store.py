"""A trained tabular generator as a checkpoint: weights, the mixture, what it learned from. Nothing
is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from campaign.errors import InputError
from campaign.types import Checkpoint, FloatArray
from generators.cvae.described import Described
from generators.cvae.mixture import Mixture
from generators.cvae.model import Categories, Sizes, TabularVAE, Variant
from generators.cvae.table import MOST_SITES, TabularCrystal, to_row
from generators.networks.checkpoints import arrays_of, kind_of, load_arrays

KIND = "tabular_vae"
_WEIGHTS = "weights."


def to_checkpoint(
    model: TabularVAE, tables: Sequence[TabularCrystal], metrics: Mapping[str, float]
) -> Checkpoint:
    """``tables``: the distinct crystals that it learned from, before they were described in many
    ways.
    """
    rows, numbers = rows_of(tables)
    facts = {
        "kind": KIND,
        "sizes": json.dumps(asdict(model.sizes)),
        "variant": model.variant,
        "is_conditional": json.dumps(model.is_conditional),
        "species": json.dumps(model.species),
        "data": hashlib.sha256(rows.tobytes() + numbers.tobytes()).hexdigest(),
    }
    mixture, conditions = model.mixture, model.conditions
    scales: dict[str, FloatArray] = {}
    if isinstance(conditions, Described):
        scales = {"conditions.center": conditions.center, "conditions.spread": conditions.spread}
    else:
        facts["categories"] = json.dumps(conditions.values)
    tensors = arrays_of(model, _WEIGHTS) | {
        "mixture.means": mixture.means,
        "mixture.spreads": mixture.spreads,
        "mixture.weights": mixture.weights,
    }
    return Checkpoint(
        tensors={**tensors, **scales, "crystals": rows, "numbers": numbers},
        metrics=dict(metrics),
        facts=facts,
    )


def from_checkpoint(checkpoint: Checkpoint) -> tuple[TabularVAE, list[TabularCrystal]]:
    """The model and the crystals that it learned from. Raises InputError on a checkpoint of another
    kind, or with other arrays.
    """
    facts, tensors = checkpoint.facts, checkpoint.tensors
    kind_of(checkpoint, KIND, command="oreloop train cvae")
    try:
        mixture = Mixture(
            tensors["mixture.means"], tensors["mixture.spreads"], tensors["mixture.weights"]
        )
        conditions = (
            Described(tensors["conditions.center"], tensors["conditions.spread"])
            if "conditions.center" in tensors
            else Categories(tuple(tuple(values) for values in json.loads(facts["categories"])))
        )
        model = TabularVAE(
            mixture,
            conditions,
            tuple(json.loads(facts["species"])),
            Sizes(**json.loads(facts["sizes"])),
            _variant(facts),
            is_conditional=json.loads(facts["is_conditional"]),
        )
    except (KeyError, RuntimeError) as error:
        raise InputError(f"the weights do not fit their own description: {error}") from error
    load_arrays(model, tensors, "their own description", _WEIGHTS)
    return model, tables_of(tensors["crystals"], tensors["numbers"])


def _variant(facts: Mapping[str, str]) -> Variant:
    """Checkpoints called it a form, published or better, once."""
    named = facts["variant"] if "variant" in facts else facts["form"]
    return "paper" if named in ("paper", "published") else "oreloop"


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
