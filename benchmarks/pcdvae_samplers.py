"""Two samplers of one trained P-CDVAE: annealed Langevin dynamics of the paper (5,000 calls) and
the focused one (190), by quality.

python -m benchmarks.pcdvae_samplers [--seed 100]

A small network is trained on relaxed random NiFeCr orderings of 16 and of 54 atoms together.
Crystals of compositions that it did not see are encoded and decoded by either sampler from the same
latent vectors. Each part is saved; a second run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.pcdvae_tables import PARTS, Data, relaxed, train_kept
from benchmarks.record import RESULTS, Row, goal, show, write
from campaign.files import write_whole
from campaign.types import Crystal

if TYPE_CHECKING:
    from generators.pcdvae.model import PCDVAE
    from generators.pcdvae.train import Example

SAVED = RESULTS / "parts" / "pcdvae_samplers"
STRUCTURES, ATOMS, EPOCHS = 64, (16, 54), 80
LARGE = 360
SAMPLERS = (
    "focused",
    "focused, reduced precision",
    "focused, 530 calls, reduced precision",
    "langevin, 20 a level",
    "langevin, 100 a level",
)


def large_crystals() -> list[Crystal]:
    """Relaxed random orderings of 54 atoms, one for each of as many compositions; kept as a
    file.
    """
    from ase.io import read, write

    from campaign import plugins
    from campaign.crystals.lattice import ParentLattice, supercell
    from campaign.protocols import PluginSpec
    from campaign.types import SearchSpace
    from generators.random_alloy import draw_counts

    path = SAVED / "large.extxyz"
    if not path.exists():
        elements = ("Ni", "Fe", "Cr")
        space = SearchSpace(elements, {}, dict.fromkeys(elements, 0.95))
        oracle = plugins.build(
            PluginSpec(group="oracles", use="lammps", params={"potential": "wu_lee_su_2017"})
        )
        rng = np.random.default_rng(54)
        frames: list[Any] = []
        while len(frames) < LARGE:
            counts = draw_counts(space, 54, rng)
            fractions = dict(zip(elements, counts / 54, strict=True))
            lattice: ParentLattice = (
                "fcc" if 104.1 * fractions["Ni"] - 18.6 * fractions["Fe"] > 16.4 else "bcc"
            )
            evaluation = oracle.evaluate(
                supercell(lattice, (3, 3, 3), rng.permutation(np.repeat(elements, counts)).tolist())
            )
            if evaluation.failure is None and evaluation.crystal is not None:
                frames.append(evaluation.crystal.atoms)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path.with_suffix(".part"), frames, format="extxyz")
        path.with_suffix(".part").replace(path)
    return [Crystal.from_atoms(atoms) for atoms in read(path, ":")]


def split() -> tuple[list[Example], dict[int, list[Crystal]]]:
    """What is trained on, and by number of atoms the crystals of other compositions."""
    from generators.pcdvae.data import phase_of
    from generators.pcdvae.train import Example, split_by_composition

    phases = ("fcc", "bcc")
    data = Data(PARTS / "data")
    large = large_crystals()
    learned, held = split_by_composition(large, STRUCTURES / len(large))
    crystals = [relaxed(item) for item in data.training("random")] + [large[row] for row in learned]
    examples = [
        Example(crystal, np.array([np.nan]), phase_of(crystal, phases)) for crystal in crystals
    ]
    return examples, {
        16: [relaxed(item) for item in data.test][:STRUCTURES],
        54: [large[row] for row in held][:STRUCTURES],
    }


def trained(seed: int) -> PCDVAE:
    from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
    from generators.pcdvae.store import from_checkpoint, hash_of, tables_of, to_checkpoint
    from generators.pcdvae.train import TrainingSettings

    path, resume = SAVED / f"weights-{seed}.safetensors", SAVED / f"training-{seed}.part"
    if not path.exists():
        examples, _ = split()
        settings = TrainingSettings(
            epochs=EPOCHS, patience=EPOCHS, batch_size=32, reduced_precision=True
        )
        result = train_kept(examples, settings, seed, resume)
        checkpoint = to_checkpoint(
            result.model,
            tables_of(examples, ("fcc", "bcc"), ["none"]),
            hash_of(examples),
            result.metrics,
        )
        write_whole(path, checkpoint_to_bytes(checkpoint))
        resume.unlink(missing_ok=True)
    return from_checkpoint(checkpoint_from_bytes(path.read_bytes()))[0]


def run(seed: int, atoms: int, sampler_name: str) -> Row:
    import torch

    from generators.metrics import phase_share, reconstruction
    from generators.pcdvae.optimise import encode
    from generators.pcdvae.sample import Focused, Langevin, Sampler, in_reduced_precision, sample

    torch.set_num_threads(1)
    model = trained(seed)
    decoder = in_reduced_precision(model) if "reduced" in sampler_name else model
    samplers: dict[str, Sampler] = {
        "langevin, 20 a level": Langevin(20),
        "langevin, 100 a level": Langevin(100),
        "focused, 530 calls, reduced precision": Focused(510, 20),
    }
    sampler = samplers.get(sampler_name, Focused())
    crystals = split()[1][atoms]
    torch.manual_seed(seed)
    latent, _ = encode(model, crystals)
    counts = torch.tensor([len(crystal) for crystal in crystals])
    started = time.perf_counter()
    got = sample(decoder, latent, sampler, counts=counts)
    seconds = time.perf_counter() - started
    asked = [("fcc", "bcc")[index] for index in model.predicted_phase(latent).tolist()]
    fidelity = float(np.mean([phase_share(*pair) for pair in zip(got, asked, strict=True)]))
    quality = asdict(reconstruction(crystals, got, with_fingerprints=False))
    calls = sampler.calls(model.noise.levels)
    case: Row = {
        "seed": seed,
        "atoms": atoms,
        "sampler": sampler_name,
        "calls": calls,
        "seconds": seconds,
    }
    return {**case, "phase_fidelity": fidelity, **quality}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=100)
    arguments = parser.parse_args()
    rows = []
    for atoms in ATOMS:
        for name in SAMPLERS:
            path = (
                SAVED / f"{arguments.seed}-{atoms}-{name.replace(' ', '_').replace(',', '')}.json"
            )
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, json.dumps(run(arguments.seed, atoms, name)).encode())
            row = json.loads(path.read_text())
            rows.append(
                {
                    key: None if isinstance(value, float) and math.isnan(value) else value
                    for key, value in row.items()
                }
            )
            print(
                {
                    key: round(value, 4) if isinstance(value, float) else value
                    for key, value in rows[-1].items()
                },
                flush=True,
            )
    show(summarise({"samplers": rows}))
    write("pcdvae_samplers", {"samplers": rows}, summarise)


def summarise(parts: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    by_key = {(row["atoms"], row["sampler"]): row for row in parts["samplers"]}
    for (atoms, sampler), row in by_key.items():
        for key in ("cp_g_distance", "phase_fidelity", "valid", "composition_error", "seconds"):
            found[f"{atoms} atoms, {sampler}: {key}"] = row[key]
    for atoms in ATOMS:
        paper = by_key[atoms, "langevin, 100 a level"]
        for name in ("focused, reduced precision", "focused, 530 calls, reduced precision"):
            ours = by_key[atoms, name]
            ratio, difference = (
                ours["cp_g_distance"] / paper["cp_g_distance"],
                ours["phase_fidelity"] - paper["phase_fidelity"],
            )
            label = f"{atoms} atoms, {ours['calls']} calls"
            found[f"{label}: CP G-distance over that of Langevin's {paper['calls']}"] = goal(
                ratio, 1.0, at_least=False
            )
            found[f"{label}: phase fidelity minus Langevin's"] = goal(
                difference, 0.0, at_least=True
            )
    return found


if __name__ == "__main__":
    main()
