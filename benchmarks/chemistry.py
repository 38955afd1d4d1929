"""Formation energies of known compounds and bulk moduli of elements by universal potentials,
through the product's own oracles.

python -m benchmarks.chemistry [--models 7net-l3i5 7net-mf-0-pbe chgnet] [--python
.venv-sevennet/bin/python]

Each compound is relaxed, cell and ions, by the oracle of the potential; the elements are the
product's reference crystals. Formation energies stand beside measured enthalpies at 298 K, and
those of one level of theory (PBE and PBE + U of Materials Project) beside each other. The 7net
models learned energies without corrections: they get those of A. Wang et al. (2021) with U, and the
table tells what plain energies and the anions' part alone would give. CHGNet learned corrected
energies. The trivial baseline is one number for all compounds. Bulk moduli stand beside measured
ones and beside all-electron PBE. A row is saved when it is done; a second run goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.compounds import COMPOUNDS, KJ_PER_MOL, atoms_of
from benchmarks.record import RESULTS, Row, goal, restore, show, write
from campaign.crystals.corrections import correction
from campaign.crystals.ground_states import ground_states
from campaign.crystals.references import known_figures
from campaign.executors.serial import SerialExecutor
from campaign.files import write_whole
from campaign.protocols import EvaluationJob, OracleSpec, PluginSpec
from campaign.types import Candidate, Crystal

MODELS = {"7net-l3i5": "sevennet", "7net-mf-0-pbe": "sevennet", "chgnet": "chgnet"}
SYSTEMS = ("Li-Fe-O", "Ga-N", "Na-Cl", "Al-Ni", "Ti-O", "Mg-Si-O", "W-B")
METALS = tuple(
    """
    Li Na K Cs Mg Ca Sr Ba Al Si Ge Ti V Cr Fe Co Ni Cu Zn Zr Nb Mo Ru Rh Pd Ag Hf Ta W Re Os
    Ir Pt Au Pb
    """.split()  # noqa: SIM905
)
LARGEST_MEAN_ERROR = 0.05
PARTS = RESULTS / "parts" / "chemistry"


class Bench:
    """Evaluates crystals by one oracle, in a worker of the interpreter that has it."""

    def __init__(self, model: str, python: str, measure: Sequence[str]) -> None:
        params: dict[str, Any] = {"measure": list(measure)} | (
            {"checkpoint": model} if MODELS[model] == "sevennet" else {}
        )
        command = (python,) if MODELS[model] == "sevennet" else ()
        plugin = PluginSpec(group="oracles", use=MODELS[model], params=params, python=command)
        self.executor = SerialExecutor()
        self.executor.start([OracleSpec(name=model, plugin=plugin, wall_limit=1200.0)])
        self.name = model

    def evaluate(self, crystal: Crystal) -> Row:
        """Values of the label, or its failure."""
        self.executor.submit(
            EvaluationJob(key=crystal.id, oracle=self.name, candidate=Candidate(crystal))
        )
        while not (finished := self.executor.wait(1.0)):
            pass
        evaluation = finished[0].evaluation
        if evaluation.failure is not None:
            return {
                "failure": f"{evaluation.failure.kind.value}: {evaluation.failure.message}"[:300]
            }
        values = {
            observation.quantity: observation.scalar
            for observation in evaluation.observations
            if np.ndim(observation.value) == 0
        }
        return {
            "values": values,
            "fidelity": evaluation.fidelity,
            "seconds": evaluation.cost.wall_seconds,
        }


def _path(row: Row) -> Path:
    path: Path = PARTS / row["model"] / f"{row['kind']}-{row['name']}.json"
    return path


def measure(model: str, python: str) -> list[Row]:
    """Compounds, the elements in them, and the elements whose bulk modulus is known."""
    symbols = sorted({symbol for compound in COMPOUNDS for symbol in atoms_of(compound.formula)})
    energies = [("compound", compound.formula, compound.crystal) for compound in COMPOUNDS]
    energies += [("element", symbol, ground_states()[symbol].crystal) for symbol in symbols]
    moduli = [
        ("modulus", symbol, ground_states()[symbol].crystal)
        for symbol in METALS
        if known_figures(symbol) is not None
    ]
    rows = []
    for asked, jobs in ((["forces"], energies), (["bulk_modulus"], moduli)):
        bench = None
        for kind, name, crystal in jobs:
            path = _path({"model": model, "kind": kind, "name": name})
            if not path.exists():
                bench = bench or Bench(model, python, asked)
                row = {
                    "model": model,
                    "kind": kind,
                    "name": name,
                    "atoms": len(crystal),
                    **bench.evaluate(crystal),
                }
                write_whole(path, json.dumps([row]).encode())
                print(json.dumps(row), flush=True)
            rows += json.loads(path.read_text())
        if bench is not None:
            bench.executor.shutdown()
    return rows


def formation_energies(rows: Sequence[Row]) -> dict[str, float]:
    """eV/atom without corrections, of one model, by formula; elements whose relaxation failed count
    as Materials Project has them.
    """
    found = {
        (row["kind"], row["name"]): row["values"]["energy_per_atom"]
        for row in rows
        if "values" in row
    }
    energies = {}
    for compound in COMPOUNDS:
        counts = atoms_of(compound.formula)
        keys = [("element", symbol) for symbol in counts]
        if ("compound", compound.formula) in found and all(key in found for key in keys):
            mean = sum(found["element", symbol] * count for symbol, count in counts.items()) / sum(
                counts.values()
            )
            energies[compound.formula] = found["compound", compound.formula] - mean
    return energies


def mean_error(energies: Mapping[str, float], beside: Mapping[str, float]) -> float:
    """eV/atom over the formulas that both have; NaN where there are none."""
    shared = [formula for formula in energies if formula in beside]
    if not shared:
        return float("nan")
    return fmean(abs(energies[formula] - beside[formula]) for formula in shared)


def in_system(formula: str, system: str) -> bool:
    return set(atoms_of(formula)) <= set(system.split("-"))


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    measured = {
        c.formula: c.enthalpy * KJ_PER_MOL / sum(atoms_of(c.formula).values()) for c in COMPOUNDS
    }
    centre = median(measured.values())
    baseline = dict.fromkeys(measured, centre)
    found: dict[str, Any] = {
        "compounds": len(measured),
        "mean error of one number for all (eV/atom)": mean_error(baseline, measured),
    }
    plain, told = {}, {}
    for model in MODELS:
        mine = [row for row in rows["labels"] if row["model"] == model]
        if not mine:
            continue
        plain[model] = formation_energies(mine)
        anions = {f: e + correction("materials_project_2020", f) for f, e in plain[model].items()}
        whole = {
            f: e + correction("materials_project_2020_with_u", f) for f, e in plain[model].items()
        }
        told[model] = plain[model] if model == "chgnet" else whole
        found[f"{model}: compounds labelled"] = len(plain[model])
        found[f"{model}: failures"] = "; ".join(
            f"{row['kind']} {row['name']}: {row['failure']}" for row in mine if "failure" in row
        )
        found[f"{model}: mean error beside measurement (eV/atom)"] = mean_error(
            told[model], measured
        )
        if model != "chgnet":
            found[f"{model}: the same without corrections (eV/atom)"] = mean_error(
                plain[model], measured
            )
            found[f"{model}: the same with the anions' part alone (eV/atom)"] = mean_error(
                anions, measured
            )
        for system in SYSTEMS:
            some = {
                formula: energy
                for formula, energy in told[model].items()
                if in_system(formula, system)
            }
            if some:
                found[f"{model}, {system}: mean error beside measurement (eV/atom)"] = mean_error(
                    some, measured
                )
        found |= _moduli(model, mine)
    if {"7net-l3i5", "7net-mf-0-pbe"} <= set(plain):
        same = mean_error(plain["7net-l3i5"], plain["7net-mf-0-pbe"])
        found["7net-l3i5 beside 7net-mf-0-pbe, one level of theory: mean difference (eV/atom)"] = (
            goal(same, LARGEST_MEAN_ERROR, at_least=False)
        )
        for system in SYSTEMS:
            some = {
                formula: energy
                for formula, energy in plain["7net-l3i5"].items()
                if in_system(formula, system)
            }
            if some:
                found[f"the same, {system} (eV/atom)"] = mean_error(some, plain["7net-mf-0-pbe"])
    if {"7net-l3i5", "chgnet"} <= set(told):
        found["7net-l3i5, corrected, beside chgnet: mean difference (eV/atom)"] = mean_error(
            told["7net-l3i5"], told["chgnet"]
        )
    return found


def _moduli(model: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Relative errors of bulk moduli beside measurement and beside all-electron PBE, and those
    beyond a quarter.
    """
    of_pbe, of_measured, far = [], [], []
    for row in rows:
        figures = (
            known_figures(row["name"]) if row["kind"] == "modulus" and "values" in row else None
        )
        if figures is not None:
            value = row["values"]["bulk_modulus"]
            of_measured.append(abs(value / figures.bulk_moduli[0] - 1))
            of_pbe.append(abs(value / figures.bulk_moduli[1] - 1))
            if of_pbe[-1] > 0.25:
                far.append(f"{row['name']} {value:.0f} ({figures.bulk_moduli[1]:.0f} by PBE)")
    if not of_pbe:
        return {}
    return {
        f"{model}: elements with a bulk modulus": len(of_pbe),
        f"{model}: median error of bulk moduli beside PBE": median(of_pbe),
        f"{model}: median error of bulk moduli beside measurement": median(of_measured),
        f"{model}: bulk moduli more than a quarter off PBE (GPa)": ", ".join(far),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--python",
        default=str(Path(".venv-sevennet/bin/python").absolute()),
        help="Interpreter that has sevenn.",
    )
    arguments = parser.parse_args()
    restore("chemistry", "labels", _path)
    for model in arguments.models:
        measure(model, arguments.python)
    rows = {
        "labels": [
            row for path in sorted(PARTS.glob("*/*.json")) for row in json.loads(path.read_text())
        ]
    }
    notes = (
        "No table of Materials Project's energies of compounds is to be had offline: what is "
        "of the same level of theory is a second "
        "potential that learned the same energies. W-B has no measured compound in the table."
    )
    write("chemistry", rows, summarise, notes)
    show(summarise(rows))


if __name__ == "__main__":
    main()
