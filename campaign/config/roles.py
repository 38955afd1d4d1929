"""Which oracle of a config does what."""

from __future__ import annotations

from campaign.config import elements
from campaign.config.loaded import LoadedConfig
from campaign.ledger import CampaignState
from campaign.protocols import asks_committee
from campaign.types import ENERGY_PER_ATOM


def objective_oracle(loaded: LoadedConfig) -> str:
    """Whose labels the result is: of the oracles that measure the objective's quantity the first,
    on a ladder the highest.
    """
    wanted = loaded.config.objective.quantity
    found = _measuring(loaded, wanted) or _measuring(loaded, ENERGY_PER_ATOM.name)
    levels = (
        [level.oracle for level in loaded.config.fidelities.levels]
        if loaded.config.fidelities is not None
        else []
    )
    return max(found, key=levels.index) if levels else found[0]


def reference_oracles(loaded: LoadedConfig) -> list[str]:
    """The oracles that label the elements' crystals: those named, or all that measure energies
    where formation energies are wanted.
    """
    return elements.labelling(loaded.config, loaded.measured)


def asking_committee(loaded: LoadedConfig) -> frozenset[str]:
    """The oracles whose model is the campaign's committee."""
    return frozenset(
        name for name, oracle in loaded.parts.oracles.items() if asks_committee(oracle)
    )


def waiting_for_committee(loaded: LoadedConfig, state: CampaignState) -> frozenset[str]:
    """Those of them that label nothing yet, as no committee is published."""
    return frozenset() if state.committee_of_oracles is not None else asking_committee(loaded)


def _measuring(loaded: LoadedConfig, quantity: str) -> list[str]:
    return [
        name
        for name, quantities in loaded.measured.items()
        if quantity in {known.name for known in quantities}
    ]
