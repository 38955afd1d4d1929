"""The convex hull of energies against composition, by pymatgen's PhaseDiagram, from entries of one
calculator and one set of settings.

eV per atom. Energies of different calculators have different zeros and errors, so a hull of both
would be of neither: mixing is refused.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.errors import InputError
from campaign.reading.tables import Column, Problems, found_in, measure, read_table
from campaign.types import ENERGY_PER_ATOM

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PhaseDiagram


@dataclass(frozen=True)
class Phase:
    """A crystal on the diagram: its id, counts by element (any cell), energy (eV per atom) and the
    fidelity key of its label.
    """

    id: str
    composition: Mapping[str, float]
    energy_per_atom: float
    fidelity: str


@dataclass(frozen=True)
class Stability:
    """Formation energy and energy above the hull (eV per atom), and the phases that it would
    decompose into with their atomic shares.
    """

    id: str
    formation_energy: float
    above_hull: float
    decomposition: Mapping[str, float]


class Hull:
    """The hull of phases of one fidelity. ``version`` is a hash over all of them; it changes when a
    phase is added.

    Raises InputError for phases of several fidelities, two of one id, energies that are not finite,
    or without a phase of each element alone. 2,000 phases take about 0.2 s.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        ids = [phase.id for phase in phases]
        doubled = (
            sorted({name for name in ids if ids.count(name) > 1})
            if len(set(ids)) < len(ids)
            else []
        )
        if doubled:
            raise InputError(
                f"the hull has two phases {doubled[0]!r}", hint="give each phase an id of its own"
            )
        wrong = [phase.id for phase in phases if not math.isfinite(phase.energy_per_atom)]
        if wrong:
            raise InputError(
                f"the hull's phase {wrong[0]!r} has no finite energy",
                hint="leave it out, or correct it",
            )
        fidelities = sorted({phase.fidelity for phase in phases})
        if len(fidelities) != 1:
            raise InputError(
                "a hull takes energies of one calculator and settings, but these are of "
                f"{', '.join(fidelities) or 'none'}",
                hint="their zeros differ, so that differences between them mean nothing: "
                "choose one fidelity",
            )
        elements = {
            element for phase in phases for element, count in phase.composition.items() if count > 0
        }
        pure = {next(iter(phase.composition)) for phase in phases if len(phase.composition) == 1}
        if elements - pure:
            raise InputError(
                f"the hull has no phase of {', '.join(sorted(elements - pure))} alone",
                hint="label the elements' crystals at this level (references: in the config)",
            )
        self.fidelity, self.elements = fidelities[0], tuple(sorted(elements))
        self.phases = tuple(sorted(phases, key=lambda phase: phase.id))
        text = "\n".join(
            f"{phase.id} {phase.energy_per_atom!r} {sorted(phase.composition.items())}"
            for phase in self.phases
        )
        self.version = hashlib.sha256(f"{self.fidelity}\n{text}".encode()).hexdigest()[:16]

    @cached_property
    def _diagram(self) -> PhaseDiagram:
        from pymatgen.analysis.phase_diagram import PhaseDiagram

        return PhaseDiagram([_entry(phase) for phase in self.phases])

    def stability(self, phase: Phase) -> Stability:
        """Of a phase on the hull or beside it. Raises InputError for another fidelity or an element
        that the hull lacks.
        """
        if phase.fidelity != self.fidelity:
            raise InputError(
                f"the hull is of {self.fidelity}, this energy of {phase.fidelity}: they do not mix"
            )
        foreign = sorted(set(phase.composition) - set(self.elements))
        if foreign:
            raise InputError(f"the hull has no phases with {', '.join(foreign)}")
        entry = _entry(phase)
        decomposition, above = self._diagram.get_decomp_and_e_above_hull(
            entry, allow_negative=True, check_stable=False
        )
        shares = {str(part.name): float(share) for part, share in decomposition.items()}
        return Stability(
            phase.id, float(self._diagram.get_form_energy_per_atom(entry)), float(above), shares
        )

    def stable(self) -> list[Phase]:
        """The phases on the hull."""
        names = {entry.name for entry in self._diagram.stable_entries}
        return [phase for phase in self.phases if phase.id in names]

    def tie_lines(self) -> list[tuple[Phase, Phase]]:
        """Pairs of phases that are stable beside each other: the edges of the hull's facets."""
        by_id = {phase.id: phase for phase in self.phases}
        names = [entry.name for entry in self._diagram.qhull_entries]
        edges = {
            pair
            for facet in self._diagram.facets
            for pair in itertools.combinations(sorted(names[row] for row in facet), 2)
        }
        return [(by_id[one], by_id[other]) for one, other in sorted(edges)]

    def with_phase(self, phase: Phase) -> Hull:
        """The next version, with one phase more."""
        return Hull([*self.phases, phase])


def _entry(phase: Phase) -> Any:
    from pymatgen.analysis.phase_diagram import PDEntry
    from pymatgen.core import Composition

    composition = Composition(dict(phase.composition))
    return PDEntry(composition, phase.energy_per_atom * composition.num_atoms, name=phase.id)


_COLUMNS = ("id", "formula", "energy_per_atom", "fidelity")


def read_phases(path: Path) -> list[Phase]:
    """Competing phases from a CSV with columns id, formula, energy_per_atom and fidelity.

    A header such as ``energy_per_atom (meV/atom)`` says another unit than eV. Raises InputError,
    with row and column, for ids that are there twice, formulas that are none, and energies that are
    no finite numbers.
    """
    table = read_table(path)
    hint = (
        f"expected a CSV with columns {', '.join(_COLUMNS)}; energy_per_atom in eV/atom or "
        "another unit in brackets"
    )
    try:
        columns = {name: found_in(name, table.header, str(path)) for name in _COLUMNS}
        energy = measure(
            ENERGY_PER_ATOM.name,
            ENERGY_PER_ATOM,
            Column("energy_per_atom"),
            table.header,
            str(path),
        )
    except InputError as error:
        raise InputError(error.message, hint=hint) from error
    phases: list[Phase] = []
    places: dict[str, int] = {}
    problems = Problems()
    for row in table:
        where = f"{path}, row {row.number}"
        name, formula, fidelity = (
            row.cells[columns[column]].strip() for column in ("id", "formula", "fidelity")
        )
        try:
            if not name or not fidelity:
                raise InputError(
                    f"{where}, {'id' if not name else 'fidelity'!r}: is empty", hint=hint
                )
            if name in places:
                raise InputError(
                    f"{where}: the id {name!r} stands in row {places[name]} too",
                    hint="give each phase an id of its own",
                )
            places[name] = row.number
            phases.append(
                Phase(
                    name,
                    _composition(formula, where),
                    energy.of(row.cells[energy.key], 1, where),
                    fidelity,
                )
            )
        except InputError as error:
            problems.add(error)
    problems.check()
    return phases


def _composition(formula: str, where: str) -> dict[str, float]:
    from pymatgen.core import Composition

    try:
        found = Composition(formula, strict=True).get_el_amt_dict()
        if not found or not all(math.isfinite(count) and count > 0 for count in found.values()):
            raise ValueError("it holds no atoms")
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{where}, 'formula': {formula!r} is no formula", hint="write it like FeNi3 or Cu9Zr7"
        ) from error
    return {element: float(count) for element, count in found.items()}
