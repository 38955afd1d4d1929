"""What the oracles cost and whether swapped species are noticed.

python -m benchmarks.oracles

Labels per second and core for each oracle and quantity, with the engine's own share of the time;
for MACE many crystals at once against one by one; for LAMMPS one instance for all labels against
one process per label. Then species are swapped, in copies of the MEAM files and in copies of an
oracle: each swap should be found by `oracle check`, and stop a campaign by a sentinel; without a
swap neither should.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.record import Row, goal, middle, show, write
from campaign.api import Campaign
from campaign.checkpoints import checkpoint_to_bytes
from campaign.config import loaded as configs
from campaign.crystals.lattice import supercell
from campaign.crystals.references import elemental
from campaign.errors import OracleDriftedError
from campaign.protocols import OracleSpec, PluginSpec
from campaign.testing import examine
from campaign.types import Crystal
from oracles.lammps import potentials

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (100, 101, 102)
MEAM, LIBRARY, ORDER = "MoCoNiVFeAlCr_2nn.meam", "library_2nn.meam", "Mo Co Ni V Fe Al Cr"
COPY = "alloy.meam"
"""The name of changed copies: one that tells no elements, so that it contradicts nothing."""
ELEMENTS = ("Ni", "Fe", "Cr")


def alloys(seed: int, n: int, repeats: tuple[int, int, int] = (3, 3, 3)) -> list[Crystal]:
    rng = np.random.default_rng(seed)
    atoms = 2 * int(np.prod(repeats))
    return [
        supercell(("fcc", "bcc")[i % 2], repeats, rng.choice(ELEMENTS, atoms).tolist())
        for i in range(n)
    ]


@contextmanager
def inside(owner: Any, names: Sequence[str], spent: list[float]) -> Any:
    """Adds the time that methods of an engine take to ``spent[0]``, nested calls once."""
    kept, depth = {name: getattr(owner, name) for name in names}, [0]

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            depth[0] += 1
            began = time.perf_counter()
            try:
                return method(*args, **keywords)
            finally:
                depth[0] -= 1
                if not depth[0]:
                    spent[0] += time.perf_counter() - began

        return call

    for name, method in kept.items():
        setattr(owner, name, timed(method))
    try:
        yield
    finally:
        for name in names:
            delattr(owner, name)


def lammps_rows(seed: int) -> list[Row]:
    from oracles.lammps.finite_temperature import FiniteTemperatureConfig, LammpsFiniteTemperature
    from oracles.lammps.static import Lammps, LammpsConfig

    cases: list[tuple[str, Any, int]] = [
        (
            "energy, forces and stress, unrelaxed",
            Lammps(LammpsConfig(relax="none", measure=("forces",))),
            40,
        ),
        ("energy, cell relaxed", Lammps(LammpsConfig()), 10),
        ("bulk modulus by pressure", Lammps(LammpsConfig(measure=("bulk_modulus",))), 10),
        ("elastic tensor", Lammps(LammpsConfig(measure=("elastic_tensor",))), 6),
        ("bulk modulus at 300 K", LammpsFiniteTemperature(FiniteTemperatureConfig()), 1),
    ]
    rows = []
    for name, oracle, n in cases:
        crystals = alloys(seed, n)
        oracle.evaluate(crystals[0])
        engine = oracle._engine if hasattr(oracle, "_engine") else oracle._mechanics.engine
        spent = [0.0]
        with inside(engine, ("commands",), spent):
            began = time.perf_counter()
            answers = [oracle.evaluate(crystal) for crystal in crystals]
            seconds = time.perf_counter() - began
        failed = sum(answer.failure is not None for answer in answers)
        rows.append(
            {
                "oracle": f"LAMMPS, 54 atoms: {name}",
                "seed": seed,
                "n": n,
                "seconds": seconds / n,
                "engine": spent[0] / seconds,
                "failed": failed,
            }
        )
    code = (
        "import sys; from campaign.types import Crystal; from oracles.lammps.static import *;"
        "print(LammpsBulkModulus(LammpsBulkModulusConfig()).evaluate(Crystal.from_bytes(sys.stdin.buffer.read())).value('bulk_modulus'))"
    )
    for crystal in alloys(seed, 3):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", code],
            input=crystal.to_bytes(),
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        rows.append(
            {
                "oracle": "one process",
                "seed": seed,
                "n": 1,
                "seconds": time.perf_counter() - began,
                "engine": 0.0,
                "failed": 0,
            }
        )
    return rows


def mace_rows(seed: int) -> list[Row]:
    """A network of the size that `oreloop train mace` makes, with random weights: its speed does
    not depend on them.
    """
    import torch

    from oracles.mace import network as networks
    from oracles.mace import store
    from oracles.mace.oracle import Mace, MaceConfig

    torch.set_num_threads(1)
    crystals = alloys(seed, 64, (2, 2, 2))
    rows = []
    for name, size in (
        ("16 channels, 1 layer", {"channels": 16, "layers": 1}),
        ("32 channels, 2 layers", {"channels": 32, "layers": 2}),
    ):
        architecture = networks.ArchitectureConfig(**size)
        forces = [np.full((len(crystal), 3), 0.5) for crystal in crystals]
        scales = networks.scales_of(
            crystals,
            np.array([-4.2 * len(c) for c in crystals]),
            forces,
            (24, 26, 28),
            architecture.cutoff,
        )
        origin = store.Origin(architecture=architecture, scales=scales)
        network = origin.blank(seed)
        networks.predict(network, crystals[:2])
        for batch in (1, 8, 32, 1, 8, 32):
            began = time.perf_counter()
            networks.predict(network, crystals, batch_size=batch)
            seconds = (time.perf_counter() - began) / len(crystals)
            rows.append(
                {
                    "oracle": f"MACE, {name}, 16 atoms",
                    "seed": seed,
                    "batch": batch,
                    "seconds": seconds,
                }
            )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            path.write_bytes(checkpoint_to_bytes(store.to_checkpoint([network], origin, {})))
            oracle = Mace(MaceConfig(model=path, relax="none", measure=("forces",)))
            oracle.evaluate(crystals[0])
            spent = [0.0]
            member = oracle.members[0]
            with inside(member, ("forward",), spent):
                began = time.perf_counter()
                for crystal in crystals[:16]:
                    oracle.evaluate(crystal)
                seconds = time.perf_counter() - began
            rows.append(
                {
                    "oracle": f"MACE, {name}, 16 atoms, as oracle",
                    "seed": seed,
                    "batch": 1,
                    "seconds": seconds / 16,
                    "engine": spent[0] / seconds,
                }
            )
    return rows


def gpaw_rows() -> list[Row]:
    from oracles.dft.oracle import Gpaw, ScratchConfig

    rows = []
    for name, settings in (
        ("Ni primitive, energy", {"relax": "none", "bulk_modulus": False}),
        ("Ni primitive, volume and bulk modulus", {}),
    ):
        oracle = Gpaw(
            ScratchConfig(
                moments={"Ni": 0.7}, cutoff=350, kpoint_density=2.5, setups={"Ni": "10"}, **settings
            )
        )
        began = time.perf_counter()
        evaluation = oracle.evaluate(elemental("Ni"))
        rows.append(
            {
                "oracle": f"GPAW: {name}",
                "seconds": time.perf_counter() - began,
                "failed": int(evaluation.failure is not None),
            }
        )
    return rows


def swapped_files(folder: Path, one: str, other: str) -> dict[str, str]:
    """The MEAM files with two names exchanged everywhere, so that they agree with themselves;
    unchanged where the names are equal.
    """
    shipped = potentials.shipped_folder()
    assert shipped is not None
    folder.mkdir(parents=True)
    exchange = {one: other, other: one}
    library = (shipped / LIBRARY).read_text()
    if one != other:
        library = (
            library.replace(f"'{one}'", "'@'")
            .replace(f"'{other}'", f"'{one}'")
            .replace("'@'", f"'{other}'")
        )
    (folder / LIBRARY).write_text(library)
    order = " ".join(exchange.get(name, name) for name in ORDER.split())
    (folder / COPY).write_text((shipped / MEAM).read_text().replace(ORDER, order))
    return {"file": str(folder / COPY), "library": str(folder / LIBRARY)}


def contradicting_files(folder: Path, one: str, other: str) -> dict[str, str]:
    """The names exchanged in the library alone."""
    files = swapped_files(folder, one, other)
    shipped = potentials.shipped_folder()
    assert shipped is not None
    shutil.copy(shipped / MEAM, folder / COPY)
    return files


SWAPPED_ORACLE = """
from dataclasses import replace
from oracles.lammps.static import LammpsBulkModulus, LammpsBulkModulusConfig

class SwappedConfig(LammpsBulkModulusConfig):
    pairs: dict[str, int] = {}

class Swapped(LammpsBulkModulus):
    Config = SwappedConfig

    def evaluate(self, crystal):
        exchange = {int(a): b for a, b in self.config.pairs.items()}
        answer = super().evaluate(crystal.with_numbers([exchange.get(n, n) for n in crystal.numbers.tolist()]))
        return replace(answer, crystal=answer.crystal.with_numbers(crystal.numbers) if answer.crystal is not None else None)
"""  # noqa: E501

EXPECTED = [
    {"element": "Ni", "quantity": "energy_per_atom", "value": -4.45, "tolerance": 0.02},
    {"element": "Fe", "quantity": "energy_per_atom", "value": -4.29, "tolerance": 0.02},
    {"element": "Cr", "quantity": "energy_per_atom", "value": -4.10, "tolerance": 0.02},
]
"""Cohesive energies (eV) that the potential's authors fitted to."""


def found_by_check(plugin: PluginSpec) -> bool:
    return any(
        finding.status == "failed"
        for finding in examine(OracleSpec(name="checked", plugin=plugin, wall_limit=60), ELEMENTS)
    )


def found_by_sentinel(folder: Path, oracle: dict[str, Any], plugins: Path) -> bool:
    document = {
        "name": "watched",
        "space": {"elements": list(ELEMENTS), "max_fraction": 0.9},
        "objective": {"quantity": "bulk_modulus", "direction": "maximize"},
        "budget": {"labels": 2},
        "generators": [{"use": "random_alloy", "count": 4, "params": {"repeats": [2, 1, 1]}}],
        "acquisition": {"use": "random", "initial_labels": 2, "batch_size": 2},
        "oracles": [oracle],
        "sentinels": {"expected": EXPECTED},
        "executor": {"use": "serial"},
        "tracking": {"use": "none"},
    }
    try:
        Campaign(
            folder, configs.validate(document, folder=plugins, source=plugins / "watched.yaml")
        ).run()
    except OracleDriftedError:
        return True
    return False


def swap_rows() -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "swapped_copy.py").write_text(SWAPPED_ORACLE)
        numbers = {"Ni": 28, "Fe": 26, "Cr": 24}
        cases: list[tuple[str, str, str, Any]] = [
            ("files", "none", "none", swapped_files(work / "none", "Ni", "Ni")),
            ("oracle", "none", "none", {}),
        ]
        for one, other in itertools.combinations(ELEMENTS, 2):
            cases.append(("files", one, other, swapped_files(work / f"{one}{other}", one, other)))
            cases.append(
                (
                    "oracle",
                    one,
                    other,
                    {str(numbers[one]): numbers[other], str(numbers[other]): numbers[one]},
                )
            )
            cases.append(
                (
                    "library alone",
                    one,
                    other,
                    contradicting_files(work / f"half{one}{other}", one, other),
                )
            )
        for kind, one, other, what in cases:
            use = "swapped_copy:Swapped" if kind == "oracle" else "lammps_bulk_modulus"
            params = {"pairs": what, "potential": MEAM} if kind == "oracle" else {"potential": what}
            row: Row = {"where": kind, "one": one, "other": other}
            if kind == "library alone":
                row["refused"] = _is_refused(what)
            else:
                plugin = PluginSpec(
                    group="oracles", use=use, params=params, module_folder=str(work)
                )
                row["check"] = found_by_check(plugin)
                row["sentinel"] = found_by_sentinel(
                    work / f"campaign-{kind}-{one}{other}", {"use": use, "params": params}, work
                )
            rows.append(row)
    return rows


def _is_refused(files: dict[str, str]) -> bool:
    from campaign.errors import InputError

    try:
        potentials.load(potentials.PotentialFileConfig(**files))
    except InputError as error:
        return "swapped" in error.hint
    return False


def summarise(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in ("lammps", "mace", "gpaw"):
        for name in dict.fromkeys(
            row["oracle"]
            for row in rows[part]
            if row["oracle"] != "one process" and row.get("batch", 1) == 1
        ):
            same = [row for row in rows[part] if row["oracle"] == name and row.get("batch", 1) == 1]
            found[f"{name}: labels per second and core"] = 1 / middle(same, "seconds")
            if "engine" in same[0]:
                found[f"{name}: share of the time in the engine"] = middle(same, "engine")
    process = middle([row for row in rows["lammps"] if row["oracle"] == "one process"], "seconds")
    warm = middle(
        [row for row in rows["lammps"] if row["oracle"].endswith("bulk modulus by pressure")],
        "seconds",
    )
    found["LAMMPS bulk modulus: times faster than one process per label"] = process / warm
    for name in dict.fromkeys(row["oracle"] for row in rows["mace"] if row["batch"] > 1):
        alone = middle(
            [row for row in rows["mace"] if row["oracle"] == name and row["batch"] == 1], "seconds"
        )
        for batch in sorted({row["batch"] for row in rows["mace"] if row["batch"] > 1}):
            together = middle(
                [row for row in rows["mace"] if row["oracle"] == name and row["batch"] == batch],
                "seconds",
            )
            found[f"{name}: {batch} at once over one by one (times faster)"] = alone / together
    swaps = [row for row in rows["swaps"] if row["one"] != "none" and "check" in row]
    clean = [row for row in rows["swaps"] if row["one"] == "none"]
    halves = [row for row in rows["swaps"] if "refused" in row]
    found["swaps found by oracle check, share"] = goal(
        float(np.mean([row["check"] for row in swaps])), 1.0, at_least=True
    )
    found["swaps found by a sentinel, share"] = goal(
        float(np.mean([row["sentinel"] for row in swaps])), 1.0, at_least=True
    )
    found["files that contradict themselves refused before anything runs, share"] = goal(
        float(np.mean([row["refused"] for row in halves])), 1.0, at_least=True
    )
    found["false alarms without a swap"] = goal(
        float(sum(row["check"] + row["sentinel"] for row in clean)), 0.0, at_least=False
    )
    return found


def main() -> None:
    rows: dict[str, list[Row]] = {"lammps": [], "mace": [], "gpaw": [], "swaps": swap_rows()}
    for seed in SEEDS:
        rows["lammps"] += lammps_rows(seed)
        rows["mace"] += mace_rows(seed)
    if find_spec("gpaw") is not None:
        rows["gpaw"] = gpaw_rows()
    write("oracles", rows, summarise)
    show(summarise(rows))


if __name__ == "__main__":
    main()
