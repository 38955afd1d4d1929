"""What a campaign's model expects of any crystals, for a person who asks; nothing is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from campaign.config.loaded import LoadedConfig
from campaign.decide import fit
from campaign.decide.question import modelled_oracles
from campaign.errors import InputError
from campaign.ledger import LedgerReader
from campaign.ledger.dataset import datasets_before
from campaign.ledger.state import RoundRecord
from campaign.types import Candidate, Crystal

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms
    from pymatgen.core import Structure


def crystal_of(structure: Crystal | Structure | Atoms) -> Crystal:
    """Raises InputError for what is neither one of ours, a pymatgen Structure nor ASE Atoms."""
    if isinstance(structure, Crystal):
        return structure
    if hasattr(structure, "get_scaled_positions"):
        return Crystal.from_atoms(structure)
    if hasattr(structure, "frac_coords"):
        return Crystal.from_structure(structure)
    raise InputError(
        f"expected a Crystal, a pymatgen Structure or ASE Atoms, found {type(structure).__name__}"
    )


def predict(
    loaded: LoadedConfig, reader: LedgerReader, structures: Sequence[Crystal | Structure | Atoms]
) -> pd.DataFrame:
    """Formula, and mean and standard deviation of each modelled quantity, one row a crystal; the
    model is fitted to all labels.

    Raises InputError where the config asks no model or there are too few labels.
    """
    import pandas as pd

    state = reader.fold()
    now = state.sequence + 1
    datasets = datasets_before(reader, state, now, modelled_oracles(loaded))
    if not fit.is_due(loaded.config, datasets):
        raise InputError(
            f"{len(state.labels)} labels are too few for a model, or the config asks none"
        )
    crystals = [crystal_of(item) for item in structures]
    fitted = fit.fit(
        fit.request(loaded, state, RoundRecord(len(state.rounds), now, state.time)), datasets
    ).value
    units = loaded.quantities()
    table: dict[str, Any] = {"formula": [crystal.formula for crystal in crystals]}
    for name, model in fitted.by_quantity.items():
        posterior = model.posterior([Candidate(crystal) for crystal in crystals])
        table[f"{name} ({units[name].unit})"] = posterior.mean.detach().reshape(-1).tolist()
        table[f"{name} standard deviation ({units[name].unit})"] = (
            posterior.variance.detach().sqrt().reshape(-1).tolist()
        )
    return pd.DataFrame(table)
