"""Trained weights of the conditional generators as checkpoints: arrays, and what they are as
readable facts. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from campaign.types import Checkpoint
from generators.formulas import check_formula
from generators.matrix_unet.choice import SiteChoice
from generators.matrix_unet.energies import SiteEnergies
from generators.matrix_unet.model import Design, MatrixModel
from generators.matrix_unet.symmetric_flow import SymmetricFlow
from generators.matrix_unet.train import Trained
from generators.networks.checkpoints import arrays_of, kind_of, load_arrays
from generators.networks.periodic import PeriodicSizes

MATRIX, SYMMETRIC = "matrix_unet", "symmetric_flow"
_EXPECTATION = ("energy_errors", "network.value.")


def to_checkpoint(
    trained: Trained, data_key: str, extra: Mapping[str, float] | None = None
) -> Checkpoint:
    model = trained.model
    is_matrix = isinstance(model, MatrixModel)
    shape = asdict(model.design) if isinstance(model, MatrixModel) else asdict(model.sizes)
    facts = {
        "kind": MATRIX if is_matrix else SYMMETRIC,
        "shape": json.dumps(shape),
        "prototypes": json.dumps(dict(trained.choice.counts), sort_keys=True),
        "site_weights": json.dumps(trained.choice.weights.tolist()),
        "new_site_weights": json.dumps(trained.choice.new_weights.tolist()),
        "known_energies": _written(trained.choice.energies),
        "data": data_key,
    }
    metrics = {**trained.metrics, **(extra or {})}
    return Checkpoint(tensors=arrays_of(model), metrics=metrics, facts=facts)


def _design(shape: Mapping[str, Any]) -> Design:
    """Checkpoints called the variant a form, faithful or better, once."""
    facts = dict(shape)
    if former := facts.pop("form", ""):
        facts["variant"] = {"faithful": "paper", "better": "oreloop"}[former]
    return Design(**facts)


def from_checkpoint(checkpoint: Checkpoint) -> tuple[MatrixModel | SymmetricFlow, SiteChoice]:
    """Raises InputError on a checkpoint of another kind, or on one whose arrays are not those of
    its facts.
    """
    facts = checkpoint.facts
    kind = kind_of(checkpoint, MATRIX, SYMMETRIC, command="oreloop train flow")
    shape = json.loads(facts["shape"])
    model = MatrixModel(_design(shape)) if kind == MATRIX else SymmetricFlow(PeriodicSizes(**shape))
    arrays = dict(checkpoint.tensors)
    if (
        kind == SYMMETRIC and "energy_errors" not in arrays
    ):  # an older checkpoint: it expects no energies, and trusts none
        arrays = {
            name: value for name, value in arrays_of(model).items() if name.startswith(_EXPECTATION)
        } | arrays
    load_arrays(model, arrays, "their own description")
    energies = (
        _read(facts["known_energies"]) if "known_energies" in facts else SiteEnergies()
    )  # older checkpoints know nothing of them
    new = np.array(json.loads(facts.get("new_site_weights", "[0.0, 0.0, 0.0]")))
    return model, SiteChoice(
        np.array(json.loads(facts["site_weights"])), json.loads(facts["prototypes"]), energies, new
    )


def _written(energies: SiteEnergies) -> str:
    known = [[str(formula), prototype] for formula, prototype in energies.known]
    return json.dumps(
        [
            known,
            energies.weights.tolist(),
            energies.middle,
            energies.settings.tolist(),
            energies.deviation,
        ]
    )


def _read(text: str) -> SiteEnergies:
    known, weights, middle, settings, deviation = json.loads(text)
    crystals = [(check_formula(formula), prototype) for formula, prototype in known]
    return SiteEnergies(crystals, np.array(weights), middle, np.array(settings), deviation)
