"""The oracle ``committee``: different potentials label one crystal, their mean is the label and
their spread its noise.

Each member relaxes the crystal itself, so that none is blamed for strain at another's minimum; the
relaxed crystal is the first member's. Energies of different potentials count from different zeros,
so they are compared as formation energies: each member labels the elements' ground states once, and
its energies are shifted to the first member's zero; enthalpies by those of the elements at that
pressure. Formation energies of the means are therefore the means of the members' own. A member that
fails has the whole label fail. A label costs the sum of its members'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field

from campaign import plugins
from campaign.crystals import references
from campaign.errors import InputError
from campaign.parameters import Parameters, PluginParameter
from campaign.protocols import HasElements, HasTrial, RelaxesVolume
from campaign.types import (
    ENERGY_PER_ATOM,
    ENTHALPY_PREFIX,
    PROPOSED_ENERGY,
    Crystal,
    Evaluation,
    Failure,
    FailureKind,
    Fidelity,
    Observation,
    Quantity,
)
from oracles.inner import built

DISAGREEMENT = "disagreement"
_FROM_A_ZERO = (ENERGY_PER_ATOM.name, PROPOSED_ENERGY.name, "free_energy_per_atom")


class CommitteeConfig(Parameters):
    """Who the members are, and what their disagreement is about."""

    members: tuple[PluginParameter, ...] = Field(
        min_length=2, description="Oracles, each with use: and params:, of different potentials."
    )
    structures: dict[str, Literal["fcc", "bcc", "hcp", "diamond", "sc"]] = Field(
        default_factory=dict,
        description="Crystals of elements that energies are compared by, where they are not "
        "the ground states.",
    )
    about: str = Field(
        ENERGY_PER_ATOM.name,
        description="Quantity whose spread is the disagreement: standard deviation over the "
        "members, in its unit; energies on one zero.",
    )


def _zero_of(quantity: str) -> str:
    """The quantity of the elements' crystals that says where this one counts from; empty where it
    counts from no zero of a potential.
    """
    if quantity.startswith(ENTHALPY_PREFIX):
        return quantity
    return ENERGY_PER_ATOM.name if quantity in _FROM_A_ZERO else ""


class _NoZeroError(Exception):
    """A member has no energy of an element's crystal."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


class Committee:
    """Mean and spread of every scalar that all members measure, and their disagreement about one of
    them.
    """

    Config = CommitteeConfig

    def __init__(self, config: CommitteeConfig) -> None:
        self.config = config
        self._specs = [member.spec("oracles") for member in config.members]
        self.members = [built(spec, "members", i, "params") for i, spec in enumerate(self._specs)]
        self._fidelities = [
            plugins.fidelity_of(*pair).key for pair in zip(self.members, self._specs, strict=True)
        ]
        self._elemental: dict[tuple[int, str], Evaluation] = {}
        doubled = [key for key, n in Counter(self._fidelities).items() if n > 1]
        if doubled:
            raise InputError(
                f"two members of the committee are of one level of theory, {doubled[0]}",
                hint="name different potentials",
            )
        known = {quantity.name for quantity in self._common}
        if config.about not in known:
            raise InputError(
                f"not every member measures {config.about!r}",
                hint=f"all measure {', '.join(sorted(known)) or 'nothing'}",
            )

    @cached_property
    def _common(self) -> tuple[Quantity, ...]:
        """The scalars that all members measure in one unit."""
        others = [set(member.quantities) for member in self.members[1:]]
        return tuple(
            quantity
            for quantity in self.members[0].quantities
            if not quantity.shape and all(quantity in other for other in others)
        )

    @cached_property
    def quantities(self) -> tuple[Quantity, ...]:
        unit = next(
            quantity.unit for quantity in self._common if quantity.name == self.config.about
        )
        return (*self._common, Quantity(DISAGREEMENT, unit))

    @cached_property
    def elements(self) -> frozenset[str]:
        from ase.data import chemical_symbols

        everything = frozenset(chemical_symbols[1:])
        if any(_zero_of(quantity.name) for quantity in self._common):
            everything = frozenset(
                symbol
                for symbol in everything
                if symbol in self.config.structures or references.has_reference(symbol)
            )
        return everything.intersection(
            *(member.elements for member in self.members if isinstance(member, HasElements))
        )

    @property
    def relaxes_volume(self) -> bool:
        return all(
            isinstance(member, RelaxesVolume) and member.relaxes_volume for member in self.members
        )

    @property
    def energy_zero(self) -> str:
        """What energies count from: what the first member's do."""
        return str(getattr(self.members[0], "energy_zero", ""))

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(
            "committee",
            {
                "members": self._fidelities,
                "about": self.config.about,
                "structures": dict(self.config.structures),
                "protocol": 1,
            },
        )

    def trial(self, elements: Sequence[str]) -> None:
        """Those of the members. Raises InputError."""
        for member in self.members:
            if isinstance(member, HasTrial):
                member.trial(elements)

    def evaluate(self, crystal: Crystal) -> Evaluation:
        answers = []
        for i, member in enumerate(self.members):
            answer = member.evaluate(crystal)
            if answer.failure is not None:
                return Evaluation(failure=self._told(i, answer.failure, ""))
            answers.append(answer)
        unknown = sorted(set(crystal.symbols) - self.elements)
        if unknown:
            message = (
                f"there is no reference crystal of {', '.join(unknown)}, by which the "
                "members' energies could be compared"
            )
            return Evaluation.failed(FailureKind.UNPHYSICAL, message, retryable=False)
        observations = []
        for quantity in self._common:
            values = np.array([answer.value(quantity.name) for answer in answers])
            if zero := _zero_of(quantity.name):
                try:
                    zeros = np.array(
                        [self._mean_of_elements(i, zero, crystal) for i in range(len(answers))]
                    )
                except _NoZeroError as error:
                    return Evaluation(failure=error.failure)
                values = values - zeros + zeros[0]
            observations.append(
                Observation(
                    quantity.name, float(values.mean()), quantity.unit, float(values.std(ddof=1))
                )
            )
        spread = next(
            observation for observation in observations if observation.quantity == self.config.about
        )
        disagreement = Observation(DISAGREEMENT, spread.noise or 0.0, spread.unit)
        return Evaluation(observations=(*observations, disagreement), crystal=answers[0].crystal)

    def _mean_of_elements(self, i: int, quantity: str, crystal: Crystal) -> float:
        """Of a member's labels of the elements' crystals, in the proportions of a crystal. Raises
        _NoZeroError.
        """
        shares = {
            symbol: count / len(crystal) for symbol, count in Counter(crystal.symbols).items()
        }
        return sum(
            share * self._element(i, symbol).value(quantity) for symbol, share in shares.items()
        )

    def _element(self, i: int, symbol: str) -> Evaluation:
        if (i, symbol) not in self._elemental:
            answer = self.members[i].evaluate(
                references.elementals([symbol], self.config.structures)[symbol]
            )
            if answer.failure is not None:
                raise _NoZeroError(
                    self._told(
                        i,
                        answer.failure,
                        f"the crystal of {symbol}, which its energies refer to, fails: ",
                    )
                )
            self._elemental[i, symbol] = answer
        return self._elemental[i, symbol]

    def _told(self, i: int, failure: Failure, what: str) -> Failure:
        return Failure(
            failure.kind,
            f"member {i + 1}, {self.config.members[i].use}: {what}{failure.message}",
            failure.retryable,
        )
