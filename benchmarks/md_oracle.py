"""The bulk-modulus oracle against the finite-strain elastic protocol and against one process per
label, and its limit.

python -m benchmarks.md_oracle [--published nifecr_bulk_modulus_24.csv]

The published table (24 NiFeCr and NiCr cells of 54 atoms) is read where it is given; the comparison
of the protocols needs no file. The elastic protocol is the finite-difference one of LAMMPS' ELASTIC
example: cell relaxed to a force norm of 1e-10 eV/angstrom, then six strains of +-1e-6, ions relaxed
in each, B = (C11 + 2 C12) / 3 with the constants averaged over the axes.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import Row, goal, middle, show, write
from campaign.crystals.lattice import supercell
from campaign.types import Crystal
from oracles.lammps.engine import LammpsEngine
from oracles.lammps.static import LammpsBulkModulus, LammpsBulkModulusConfig, LammpsMechanics

ROOT = Path(__file__).resolve().parent.parent
CELLS, REPEATS, STRAIN, SAME_ENERGY = 12, 3, 1e-6, 1e-5
_COMPONENTS = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")
_EVALUATIONS = re.compile(r"Iterations, force evaluations\s*=\s*(\d+)\s+(\d+)")


def cells(seed: int, n: int) -> Iterator[tuple[str, Crystal]]:
    """54-atom NiFeCr cells on both lattices, compositions uniform below 90 at%."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        parent = ("bcc", "fcc")[i % 2]
        while (share := rng.dirichlet(np.ones(3))).max() > 0.9:
            pass
        counts = np.floor(54 * share).astype(int)
        counts[0] += 54 - counts.sum()
        symbols = rng.permutation(np.repeat(["Ni", "Fe", "Cr"], counts)).tolist()
        yield parent, supercell(parent, (3, 3, 3), symbols)  # type: ignore[arg-type]


def elastic_bulk_modulus(engine: LammpsEngine, crystal: Crystal) -> tuple[float, float, float]:
    """By the finite-strain elastic protocol: bulk modulus (GPa), and energy per atom (eV) and
    largest pressure (GPa) that it relaxed to.

    The protocol ends a relaxation after 1,000 evaluations, wherever it stands.
    """
    engine.load(crystal)
    engine.commands(
        "min_style cg", "min_modify dmax 0.01 line quadratic", "fix relax all box/relax aniso 0.0"
    )
    engine.commands("minimize 0 1e-10 5000 1000", "unfix relax")
    relaxed = engine.figures()
    pressure = max(abs(relaxed[component]) for component in ("pxx", "pyy", "pzz"))
    engine.commands("displace_atoms all random 1e-5 1e-5 1e-5 87287 units box")
    if not engine.is_triclinic:
        engine.commands("change_box all triclinic")
    lmp = engine.lmp
    low, high, xy, yz, xz, _, _ = lmp.extract_box()
    size = np.asarray(high) - np.asarray(low)
    home = lmp.gather_atoms("x", 1, 3)
    rest = [f"{axis} final {low[i]:.17g} {high[i]:.17g}" for i, axis in enumerate("xyz")]
    rest += [f"xy final {xy:.17g}", f"xz final {xz:.17g}", f"yz final {yz:.17g}"]
    base = {"x": 0, "y": 1, "z": 2, "yz": 2, "xz": 2, "xy": 1}
    tilt = {"yz": yz, "xz": xz, "xy": xy}
    stiffness = np.zeros((6, 6))
    for row, (name, axis) in enumerate(base.items()):
        pressures = []
        for sign in (-1, 1):
            delta = sign * STRAIN * size[axis]
            change = (
                f"{name} delta 0 {delta:.17g}"
                if len(name) == 1
                else f"{name} final {tilt[name] + delta:.17g}"
            )
            engine.commands(
                f"change_box all {change} remap units box", "minimize 0 1e-10 5000 1000"
            )
            figures = engine.figures()
            pressures.append(np.array([figures[component] for component in _COMPONENTS]))
            engine.commands(f"change_box all {' '.join(rest)} remap units box")
            lmp.scatter_atoms("x", 1, 3, home)
        stiffness[row] = -(pressures[1] - pressures[0]) / (2 * STRAIN)
    c11 = np.diag(stiffness)[:3].mean()
    c12 = (stiffness[:3, :3].sum() - np.diag(stiffness)[:3].sum()) / 6
    return float((c11 + 2 * c12) / 3), relaxed["pe"] / len(crystal), pressure


def force_share(crystals: Sequence[Crystal]) -> list[Row]:
    """Of each label: force evaluations, the time of one, and the share of the label's time that
    they take.
    """
    oracle = LammpsBulkModulus(LammpsBulkModulusConfig())
    oracle.evaluate(crystals[0])
    mechanics = oracle._mechanics
    assert isinstance(mechanics, LammpsMechanics)
    engine = mechanics.engine
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for i, crystal in enumerate(crystals):
            log = Path(folder) / f"{i}.log"
            engine.commands(f"log {log}")
            began = time.process_time()
            oracle.evaluate(crystal)
            seconds = time.process_time() - began
            engine.commands("log none")
            evaluations = sum(int(found[1]) for found in _EVALUATIONS.findall(log.read_text()))
            engine.commands("run 0 post no")
            began = time.process_time()
            engine.commands("run 200 pre no post no")
            one = (time.process_time() - began) / 200
            rows.append(
                {
                    "seconds": seconds,
                    "force_evaluations": evaluations,
                    "ms_per_evaluation": 1000 * one,
                }
            )
            rows[-1]["share_in_forces"] = evaluations * one / seconds
    return rows


def one_process_per_label(crystal: Crystal) -> float:
    """Wall seconds of a label in a fresh process."""
    code = (
        "import sys; from campaign.types import Crystal; from oracles.lammps.static import *;"
        "e = LammpsBulkModulus(LammpsBulkModulusConfig()).evaluate(Crystal.from_bytes(sys.stdin.buffer.read()));"  # noqa: E501
        "print(e.value('bulk_modulus'))"
    )
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code],
        input=crystal.to_bytes(),
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - began


def compare(seed: int) -> list[Row]:
    """Side by side on the same cells, interleaved, the order of the protocols turning."""
    oracle = LammpsBulkModulus(LammpsBulkModulusConfig())
    elastic = LammpsEngine(oracle.potential)
    rows = []
    for parent, crystal in cells(seed, CELLS):
        for repeat in range(REPEATS):
            row: Row = {"seed": seed, "phase": parent, "formula": crystal.formula, "repeat": repeat}

            def cheap(row: Row = row, crystal: Crystal = crystal) -> None:
                began = time.perf_counter()
                evaluation = oracle.evaluate(crystal)
                row["seconds"] = time.perf_counter() - began
                row["modulus"], row["energy"] = (
                    evaluation.value("bulk_modulus"),
                    evaluation.value("energy_per_atom"),
                )

            def full(row: Row = row, crystal: Crystal = crystal) -> None:
                began = time.perf_counter()
                row["elastic_modulus"], row["elastic_energy"], row["elastic_pressure"] = (
                    elastic_bulk_modulus(elastic, crystal)
                )
                row["elastic_seconds"] = time.perf_counter() - began

            for measure in (cheap, full) if repeat % 2 else (full, cheap):
                measure()
            if repeat == 0:
                row["process_seconds"] = one_process_per_label(crystal)
            rows.append(row)
    elastic.close()
    return rows


def published(path: Path) -> list[Row]:
    """Deviation of the oracle from published labels."""
    from pymatgen.core import Structure

    csv.field_size_limit(2**31 - 1)
    oracle = LammpsBulkModulus(LammpsBulkModulusConfig())
    rows = []
    with path.open(newline="") as file:
        for record in csv.DictReader(file):
            crystal = Crystal.from_structure(Structure.from_str(record["cif"], fmt="cif"))
            began = time.perf_counter()
            modulus = oracle.evaluate(crystal).value("bulk_modulus")
            seconds = time.perf_counter() - began
            deviation = modulus - float(record["bulk_modulus_GPa"])
            rows.append(
                {
                    "id": record["id"],
                    "phase": record["phase"],
                    "deviation": deviation,
                    "seconds": seconds,
                }
            )
    return rows


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    part = rows["compare"]
    found["seconds per label on one core"] = goal(middle(part, "seconds"), 0.2, at_least=False)
    found["labels per second per core"] = 1 / middle(part, "seconds")
    found["times faster than the elastic protocol"] = middle(
        [{"x": r["elastic_seconds"] / r["seconds"]} for r in part], "x"
    )
    found["times faster than one process per label"] = middle(
        [{"x": r["process_seconds"] / r["seconds"]} for r in part if "process_seconds" in r], "x"
    )
    for phase in ("fcc", "bcc"):
        first = [r for r in part if r["phase"] == phase and r["repeat"] == 0]
        same = [r for r in first if abs(r["energy"] - r["elastic_energy"]) < SAME_ENERGY]
        other = [r for r in first if r not in same]
        difference = [abs(r["modulus"] - r["elastic_modulus"]) for r in same]
        found[f"{phase} cells where both protocols relax to one energy"] = (
            f"{len(same)} of {len(first)}"
        )
        found[f"mean |difference| from the elastic protocol there, {phase} (GPa)"] = float(
            np.mean(difference)
        )
        found[f"largest |difference| from the elastic protocol there, {phase} (GPa)"] = float(
            np.max(difference)
        )
        if other:
            lower = sum(r["energy"] < r["elastic_energy"] for r in other)
            found[f"{phase} cells where ours is lower among the others"] = (
                f"{lower} of {len(other)}"
            )
            found[f"median pressure left by the elastic protocol there, {phase} (GPa)"] = middle(
                other, "elastic_pressure"
            )
    found["share of the time inside LAMMPS' force evaluations"] = middle(
        rows["limit"], "share_in_forces"
    )
    found["force evaluations per label"] = middle(rows["limit"], "force_evaluations")
    found["ms per force evaluation"] = middle(rows["limit"], "ms_per_evaluation")
    if rows.get("published"):
        deviations = {r["id"]: abs(r["deviation"]) for r in rows["published"]}
        fcc = [abs(r["deviation"]) for r in rows["published"] if r["phase"] == "fcc"]
        found["mean |deviation| from published labels, fcc (GPa)"] = goal(
            float(np.mean(fcc)), 0.02, at_least=False
        )
        found["mean |deviation| from published labels, all 24 (GPa)"] = goal(
            float(np.mean(list(deviations.values()))), 0.1, at_least=False
        )
        found["largest |deviation| from published labels (GPa)"] = max(deviations.values())
        found["mean seconds per published label"] = goal(
            float(np.mean([r["seconds"] for r in rows["published"]])), 0.2, at_least=False
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--published", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101, 102])
    arguments = parser.parse_args()
    rows: dict[str, list[Row]] = {"compare": [], "limit": [], "published": []}
    for seed in arguments.seeds:
        rows["compare"] += compare(seed)
        rows["limit"] += [
            {"seed": seed, **row}
            for row in force_share([crystal for _, crystal in cells(seed, CELLS)])
        ]
    if arguments.published:
        rows["published"] = published(arguments.published)
    write(
        "md_oracle",
        rows,
        summarise,
        notes=json.dumps({"published": arguments.published.name if arguments.published else None}),
    )
    show(summarise(rows))


if __name__ == "__main__":
    main()
