"""Known compounds whose enthalpy of formation is measured: the crystal, and the enthalpy at 298 K
(kJ/mol of formula).

Enthalpies: NIST-JANAF tables and the CRC Handbook of Chemistry and Physics; of Al-Co and Al-Ni: O.
Kubaschewski et al., Materials Thermochemistry (1993); of GaN: M. R. Ranade et al., J. Phys. Chem. B
104 (2000) 4060. Cells (angstrom, degrees) and positions are those of the mineral or prototype, to
be relaxed.
"""

from __future__ import annotations

from dataclasses import dataclass

from campaign.types import Crystal

KJ_PER_MOL = 1 / 96.485332
"""eV."""


def atoms_of(formula: str) -> dict[str, int]:
    """Atoms by symbol, of ``MgAl2O4``."""
    from pymatgen.core import Composition

    return {
        str(symbol): int(count) for symbol, count in Composition(formula).get_el_amt_dict().items()
    }


Position = tuple[str, float, float, float]


@dataclass(frozen=True)
class Compound:
    """``cell``: a, b, c, alpha, beta, gamma; ``positions``: symbol and fractional coordinates of
    each orbit; second origin choice.
    """

    formula: str
    space_group: int
    cell: tuple[float, float, float, float, float, float]
    positions: tuple[Position, ...]
    enthalpy: float

    @property
    def crystal(self) -> Crystal:
        """The primitive cell."""
        from ase.spacegroup import crystal

        symbols = [position[0] for position in self.positions]
        basis = [position[1:] for position in self.positions]
        setting = 2 if self.space_group == 227 else 1
        atoms = crystal(
            symbols,
            basis,
            spacegroup=self.space_group,
            setting=setting,
            cellpar=list(self.cell),
            primitive_cell=True,
        )
        return Crystal.from_atoms(atoms)


def _cubic(
    formula: str, space_group: int, a: float, enthalpy: float, *positions: Position
) -> Compound:
    return Compound(formula, space_group, (a, a, a, 90, 90, 90), positions, enthalpy)


def _rock_salt(cation: str, anion: str, a: float, enthalpy: float) -> Compound:
    return _cubic(cation + anion, 225, a, enthalpy, (cation, 0, 0, 0), (anion, 0.5, 0.5, 0.5))


def _fluorite(one: str, two: str, formula: str, a: float, enthalpy: float) -> Compound:
    """``two`` is the ion of which there are two."""
    return _cubic(formula, 225, a, enthalpy, (one, 0, 0, 0), (two, 0.25, 0.25, 0.25))


def _zinc_blende(cation: str, anion: str, a: float, enthalpy: float) -> Compound:
    return _cubic(cation + anion, 216, a, enthalpy, (cation, 0, 0, 0), (anion, 0.25, 0.25, 0.25))


def _caesium_chloride(one: str, other: str, a: float, enthalpy: float) -> Compound:
    return _cubic(one + other, 221, a, enthalpy, (one, 0, 0, 0), (other, 0.5, 0.5, 0.5))


def _hexagonal(
    formula: str, space_group: int, a: float, c: float, enthalpy: float, *positions: Position
) -> Compound:
    return Compound(formula, space_group, (a, a, c, 90, 90, 120), positions, enthalpy)


def _wurtzite(cation: str, anion: str, a: float, c: float, enthalpy: float) -> Compound:
    return _hexagonal(
        cation + anion, 186, a, c, enthalpy, (cation, 1 / 3, 2 / 3, 0), (anion, 1 / 3, 2 / 3, 0.38)
    )


def _rutile(cation: str, anion: str, a: float, c: float, enthalpy: float) -> Compound:
    cell = (a, a, c, 90.0, 90.0, 90.0)
    return Compound(
        f"{cation}{anion}2", 136, cell, ((cation, 0, 0, 0), (anion, 0.305, 0.305, 0)), enthalpy
    )


def _corundum(cation: str, a: float, c: float, enthalpy: float) -> Compound:
    return _hexagonal(
        f"{cation}2O3", 167, a, c, enthalpy, (cation, 0, 0, 0.353), ("O", 0.306, 0, 0.25)
    )


def _spinel(one: str, two: str, formula: str, a: float, enthalpy: float) -> Compound:
    u = 0.262
    return _cubic(
        formula, 227, a, enthalpy, (one, 0.125, 0.125, 0.125), (two, 0.5, 0.5, 0.5), ("O", u, u, u)
    )


COMPOUNDS = (
    _rock_salt("Li", "F", 4.03, -616.0),
    _rock_salt("Li", "Cl", 5.13, -408.6),
    _rock_salt("Na", "F", 4.63, -576.6),
    _rock_salt("Na", "Cl", 5.64, -411.2),
    _rock_salt("K", "F", 5.34, -567.3),
    _rock_salt("K", "Cl", 6.29, -436.5),
    _rock_salt("Mg", "O", 4.21, -601.6),
    _rock_salt("Ca", "O", 4.81, -634.9),
    _rock_salt("Sr", "O", 5.16, -592.0),
    _rock_salt("Ba", "O", 5.54, -548.0),
    _rock_salt("Mg", "S", 5.20, -346.0),
    _rock_salt("Ca", "S", 5.69, -482.4),
    _rock_salt("Ti", "N", 4.24, -337.7),
    _rock_salt("Ti", "C", 4.33, -184.5),
    _rock_salt("Mn", "O", 4.44, -385.2),
    _rock_salt("Fe", "O", 4.33, -272.0),
    _rock_salt("Co", "O", 4.26, -237.9),
    _rock_salt("Ni", "O", 4.18, -239.7),
    _fluorite("O", "Li", "Li2O", 4.62, -597.9),
    _fluorite("O", "Na", "Na2O", 5.55, -414.2),
    _fluorite("O", "K", "K2O", 6.44, -361.5),
    _fluorite("Si", "Mg", "Mg2Si", 6.35, -77.8),
    _fluorite("Ca", "F", "CaF2", 5.46, -1228.0),
    _fluorite("Sr", "F", "SrF2", 5.80, -1216.3),
    _fluorite("Ba", "F", "BaF2", 6.20, -1207.1),
    _caesium_chloride("Cs", "Cl", 4.12, -443.0),
    _caesium_chloride("Al", "Ni", 2.89, -117.6),
    _caesium_chloride("Al", "Co", 2.86, -110.4),
    _cubic("AlNi3", 221, 3.57, -150.6, ("Al", 0, 0, 0), ("Ni", 0.5, 0.5, 0)),
    _hexagonal(
        "Al3Ni2",
        164,
        4.04,
        4.90,
        -282.5,
        ("Al", 0, 0, 0),
        ("Al", 1 / 3, 2 / 3, 0.648),
        ("Ni", 1 / 3, 2 / 3, 0.149),
    ),
    _zinc_blende("Si", "C", 4.36, -73.2),
    _zinc_blende("Ga", "As", 5.65, -71.0),
    _zinc_blende("Ga", "P", 5.45, -88.0),
    _zinc_blende("In", "P", 5.87, -88.7),
    _zinc_blende("Al", "As", 5.66, -116.3),
    _zinc_blende("Zn", "S", 5.41, -206.0),
    _zinc_blende("In", "As", 6.06, -58.6),
    _zinc_blende("Ga", "Sb", 6.10, -41.8),
    _zinc_blende("In", "Sb", 6.48, -30.5),
    _wurtzite("Ga", "N", 3.19, 5.19, -156.8),
    _wurtzite("Al", "N", 3.11, 4.98, -318.0),
    _wurtzite("Zn", "O", 3.25, 5.21, -350.5),
    _wurtzite("Cd", "S", 4.14, 6.72, -161.9),
    _wurtzite("Be", "O", 2.70, 4.38, -609.4),
    _rutile("Ti", "O", 4.594, 2.959, -944.0),
    _rutile("Sn", "O", 4.737, 3.186, -577.6),
    _rutile("Mg", "F", 4.62, 3.05, -1124.2),
    _rutile("Mn", "O", 4.40, 2.87, -520.0),
    _corundum("Al", 4.759, 12.99, -1675.7),
    _corundum("Cr", 4.96, 13.59, -1139.7),
    _corundum("Fe", 5.035, 13.75, -824.2),
    _corundum("Ti", 5.15, 13.60, -1520.9),
    _corundum("V", 4.95, 14.00, -1218.8),
    _spinel("Mg", "Al", "MgAl2O4", 8.08, -2299.0),
    _spinel("Fe", "Fe", "Fe3O4", 8.39, -1118.4),
    _hexagonal(
        "SiO2", 154, 4.913, 5.405, -910.7, ("Si", 0.4697, 0, 2 / 3), ("O", 0.4135, 0.2669, 0.7858)
    ),
    Compound(
        "Mg2SiO4",
        62,
        (10.207, 5.98, 4.756, 90, 90, 90),
        (
            ("Mg", 0, 0, 0),
            ("Mg", 0.2774, 0.25, 0.9915),
            ("Si", 0.0940, 0.25, 0.4262),
            ("O", 0.0913, 0.25, 0.7657),
            ("O", 0.4474, 0.25, 0.2215),
            ("O", 0.1628, 0.0331, 0.2777),
        ),
        -2174.0,
    ),
    _hexagonal(
        "Li3N",
        191,
        3.648,
        3.875,
        -164.6,
        ("N", 0, 0, 0),
        ("Li", 0, 0, 0.5),
        ("Li", 1 / 3, 2 / 3, 0),
    ),
    _hexagonal(
        "Si3N4",
        176,
        7.606,
        2.909,
        -744.8,
        ("Si", 0.1744, 0.7688, 0.25),
        ("N", 0.3298, 0.0311, 0.25),
        ("N", 1 / 3, 2 / 3, 0.25),
    ),
    _hexagonal(
        "Li2O2",
        194,
        3.142,
        7.650,
        -634.3,
        ("Li", 0, 0, 0),
        ("Li", 1 / 3, 2 / 3, 0.25),
        ("O", 1 / 3, 2 / 3, 0.6498),
    ),
)
