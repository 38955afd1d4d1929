"""Two samplers of one trained P-CDVAE: annealed Langevin dynamics of the paper (5,000 calls) and the focused one (190), by quality.

python -m benchmarks.pcdvae_samplers [--seed 100] [--model P-CDVAE-LS]

Test crystals of 16 atoms, and relaxed ones of 54 atoms at the same compositions (the network, trained on 16 atoms, reads and decodes
both), are encoded and decoded by either sampler from the same latent vectors. Weights: those that benchmarks.pcdvae_tables kept.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.pcdvae_tables import PARTS, Data, lattice_by_rule, relaxed
from benchmarks.record import RESULTS, Row, goal, show, write
from campaign.artifacts import write_whole
from campaign.types import Crystal

SAVED = RESULTS / "parts" / "pcdvae_samplers"
STRUCTURES, ATOMS = 64, (16, 54)
SAMPLERS = ("focused", "focused, reduced precision", "langevin, 20 a level", "langevin, 100 a level")


def wanted(atoms: int) -> list[Crystal]:
    if atoms == 16:
        return [relaxed(item) for item in Data(PARTS / "data").test[:STRUCTURES]]
    from campaign import plugins
    from campaign.crystals.lattice import supercell
    from campaign.protocols import PluginSpec

    oracle = plugins.build(PluginSpec(group="oracles", use="lammps", params={"potential": "wu_lee_su_2017"}))
    rng, found = np.random.default_rng(54), []
    for crystal in wanted(16):
        symbols = rng.permutation(np.resize(crystal.symbols, 54)).tolist()
        evaluation = oracle.evaluate(supercell(lattice_by_rule(crystal), (3, 3, 3), symbols))
        if evaluation.failure is None and evaluation.crystal is not None:
            found.append(evaluation.crystal)
    return found


def run(model_name: str, seed: int, atoms: int, sampler_name: str) -> Row:
    import torch

    from campaign.checkpoints import checkpoint_from_bytes
    from generators.metrics import phase_share, reconstruction
    from generators.pcdvae.optimise import encode
    from generators.pcdvae.sample import Focused, Langevin, Sampler, in_reduced_precision, sample
    from generators.pcdvae.store import from_checkpoint

    weights = PARTS / "small" / f"{model_name}-{seed}" / "weights.safetensors"
    model, tables = from_checkpoint(checkpoint_from_bytes(weights.read_bytes()))
    if "reduced" in sampler_name:
        model = in_reduced_precision(model)
    samplers: dict[str, Sampler] = {"langevin, 20 a level": Langevin(20), "langevin, 100 a level": Langevin(100)}
    sampler = samplers.get(sampler_name, Focused())
    crystals = wanted(atoms)
    torch.manual_seed(seed)
    latent, _ = encode(model, crystals)
    counts = torch.tensor([len(crystal) for crystal in crystals])
    started = time.perf_counter()
    got = sample(model, latent, sampler, counts=counts)
    seconds = time.perf_counter() - started
    asked = [tables.phases[index] for index in model.predicted_phase(latent).tolist()]
    fidelity = float(np.mean([phase_share(*pair) for pair in zip(got, asked, strict=True)]))
    quality = asdict(reconstruction(crystals, got, with_fingerprints=False))
    return {
        "model": model_name,
        "seed": seed,
        "atoms": atoms,
        "sampler": sampler_name,
        "calls": sampler.calls(model.noise.levels),
        "seconds": seconds,
        "phase_fidelity": fidelity,
        **quality,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--model", default="P-CDVAE-LS")
    arguments = parser.parse_args()
    rows = []
    for atoms in ATOMS:
        for name in SAMPLERS:
            path = SAVED / f"{arguments.model}-{arguments.seed}-{atoms}-{name.replace(' ', '_').replace(',', '')}.json"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, json.dumps(run(arguments.model, arguments.seed, atoms, name)).encode())
            rows.append(json.loads(path.read_text()))
            print({key: round(value, 4) if isinstance(value, float) else value for key, value in rows[-1].items()}, flush=True)
    show(summarise({"samplers": rows}))
    write("pcdvae_samplers", {"samplers": rows}, summarise)


def summarise(parts: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    by_key = {(row["atoms"], row["sampler"]): row for row in parts["samplers"]}
    for (atoms, sampler), row in by_key.items():
        for key in ("cp_g_distance", "phase_fidelity", "valid", "composition_error", "seconds"):
            found[f"{atoms} atoms, {sampler}: {key}"] = row[key]
    for atoms in ATOMS:
        ours, paper = by_key[atoms, "focused, reduced precision"], by_key[atoms, "langevin, 100 a level"]
        found[f"{atoms} atoms: CP G-distance, focused over Langevin"] = goal(
            ours["cp_g_distance"] / paper["cp_g_distance"], 1.0, at_least=False
        )
        found[f"{atoms} atoms: phase fidelity, focused minus Langevin"] = goal(
            ours["phase_fidelity"] - paper["phase_fidelity"], 0.0, at_least=True
        )
        found[f"{atoms} atoms: Langevin's calls over the focused ones"] = paper["calls"] / ours["calls"]
    return found


if __name__ == "__main__":
    main()
