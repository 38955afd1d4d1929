"""What views are made of: a campaign's config, its state as it stands, and what is wanted of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from campaign.config.loaded import LoadedConfig
from campaign.config.roles import objective_oracle
from campaign.config.schema import CampaignConfig
from campaign.crystals import abundance
from campaign.decide import ranking
from campaign.ledger import CampaignState, LedgerReader
from campaign.ledger.leaders import Wanted
from campaign.types import Objective

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, eq=False)
class View:
    """A campaign to look at. ``oracle`` measures the (first) objective; ``unit`` is the
    objective's, ``units`` are those of all quantities by name.
    """

    loaded: LoadedConfig
    state: CampaignState

    @property
    def config(self) -> CampaignConfig:
        return self.loaded.config

    @property
    def objective(self) -> Objective:
        return self.config.objective.objective

    @cached_property
    def oracle(self) -> str:
        return objective_oracle(self.loaded)

    @cached_property
    def wanted(self) -> Wanted:
        return ranking.wanted_of(self.config, self.oracle)

    @cached_property
    def units(self) -> Mapping[str, str]:
        known = (*self.loaded.quantities().values(), *abundance.KNOWN.values())
        return {quantity.name: quantity.unit for quantity in known}

    @property
    def unit(self) -> str:
        return self.units[self.objective.quantity]

    @property
    def axis(self) -> str:
        """The objective's quantity as an axis of figures names it."""
        return f"{self.objective.quantity} ({self.unit})"


@dataclass(frozen=True, eq=False)
class OpenView(View):
    """A view that reads crystals too, while its ``reader`` is open."""

    reader: LedgerReader
