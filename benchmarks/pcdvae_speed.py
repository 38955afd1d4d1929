"""Seconds and memory of P-CDVAE at the paper's sizes on one core: a training step, a call of the
decoder, a sampled crystal.

python -m benchmarks.pcdvae_speed [--repeats 5]

Untrained weights: speed needs no trained ones. Each case runs in a process of its own, so that its
peak memory is its own; the cases are gone through ``repeats`` times in turn, and medians are told.
Precision: single, bfloat16 products, and those with fused layers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.record import Row, goal, middle, show, write

ATOMS, BATCHES = (16, 54), (4, 16)
PRECISIONS = ("single", "reduced", "reduced and compiled")
GOALS = {"training step": 1.2, "decoder call": 0.27, "16 crystals": 60.0}
MOST_MEMORY = 4.0


@dataclass(frozen=True)
class Case:
    what: str
    precision: str
    atoms: int
    batch: int


def cases() -> list[Case]:
    what = ("training step", "decoder call")
    found = [Case(*case) for case in itertools.product(what, PRECISIONS[:2], ATOMS, BATCHES)]
    found += [Case(name, PRECISIONS[2], 54, 16) for name in what]
    return found + [Case("16 crystals", "reduced", atoms, 16) for atoms in ATOMS]


def measure(case: Case) -> Row:
    """One case, in this process: median seconds after two first calls, share of matrix products,
    peak memory (GB).
    """
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    call = {"training step": training_step, "decoder call": decoder_call, "16 crystals": crystals}[
        case.what
    ](case)
    n_before, n_timed = (0, 1) if case.what == "16 crystals" else (2, 5)
    times = []
    for _ in range(n_before + n_timed):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    share = (
        products_share(call) if case.precision == "reduced" and case.what != "16 crystals" else None
    )
    seconds = float(np.median(times[n_before:]))
    return {
        **asdict(case),
        "seconds": seconds,
        "first_seconds": times[0],
        "gigabytes": memory,
        "products": share,
    }


def examples(n: int, atoms: int):  # type: ignore[no-untyped-def]
    from campaign.crystals.lattice import supercell
    from campaign.types import Crystal
    from generators.pcdvae.train import Example

    rng, found = np.random.default_rng(0), []
    repeats = {16: (2, 2, 2), 54: (3, 3, 3)}[atoms]
    for row in range(n):
        ideal = supercell(
            ("fcc", "bcc")[row % 2], repeats, rng.choice(["Ni", "Fe", "Cr"], atoms).tolist()
        )
        crystal = Crystal(
            ideal.lattice, ideal.fractional + rng.normal(0, 0.01, (atoms, 3)), ideal.numbers
        )
        found.append(Example(crystal, np.array([rng.normal()]), row % 2))
    return found


def training_step(case: Case) -> Callable[[], object]:
    import torch

    from generators.networks.graph import batch_of
    from generators.networks.layers import observing
    from generators.pcdvae.losses import Targets, Weights, losses, total
    from generators.pcdvae.model import PCDVAE, Shape

    data = examples(case.batch, case.atoms)
    model = PCDVAE("paper", Shape(case.atoms, 2))
    batch = batch_of([example.crystal for example in data])
    targets = Targets(
        torch.zeros(len(data), 6),
        torch.zeros(len(data), 1),
        torch.tensor([example.phase for example in data]),
    )
    with torch.no_grad(), observing(model.decoder):
        losses(model, batch, targets)
    if case.precision.endswith("compiled"):
        model.compile_layers()
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=case.precision != "single"):
            found = losses(model, batch, targets)
        total(found, Weights()).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_value_(model.parameters(), 0.5)
        optimiser.step()

    return step


def decoder_call(case: Case) -> Callable[[], object]:
    import torch

    from generators.networks.graph import batch_of
    from generators.pcdvae.model import PCDVAE, Shape
    from generators.pcdvae.sample import in_reduced_precision

    model = PCDVAE("paper", Shape(case.atoms, 2)).eval()
    if case.precision != "single":
        model = in_reduced_precision(model)
    if case.precision.endswith("compiled"):
        model.compile_layers()
    batch = batch_of([example.crystal for example in examples(case.batch, case.atoms)])
    latent = torch.randn(case.batch, model.sizes.latent).to(model.element.weight.dtype)
    phase = torch.arange(case.batch) % 2

    def call() -> object:
        with torch.no_grad():
            return model.decode(batch, latent, phase)

    return call


def crystals(case: Case) -> Callable[[], object]:
    import torch

    from generators.pcdvae.model import PCDVAE, Shape, cell_parameters
    from generators.pcdvae.sample import Focused, in_reduced_precision, sample

    model = PCDVAE("paper", Shape(case.atoms, 2)).eval()
    data = examples(case.batch, case.atoms)
    with torch.no_grad():
        model.lattice_mean.copy_(
            torch.as_tensor(
                np.mean([cell_parameters(e.crystal.lattice, case.atoms) for e in data], axis=0)
            )
        )
    latent, counts = (
        torch.randn(case.batch, model.sizes.latent),
        torch.full((case.batch,), case.atoms),
    )
    model = in_reduced_precision(model)
    return lambda: sample(model, latent, Focused(), counts=counts)


def products_share(call: Callable[[], object]) -> float:
    """The share of processor time in matrix products."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    events = found.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    return float(
        sum(
            e.self_cpu_time_total
            for e in events
            if e.key in ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm")
        )
        / total
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(Case(**json.loads(arguments.case)))))
        return
    rows: list[Row] = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for repeat in range(arguments.repeats):
        for case in cases():
            if case.what == "16 crystals" and repeat >= 3:
                continue
            command = [
                sys.executable,
                "-m",
                "benchmarks.pcdvae_speed",
                "--case",
                json.dumps(asdict(case)),
            ]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=environment
            )
            row = {"repeat": repeat, **json.loads(done.stdout.splitlines()[-1])}
            rows.append(row)
            print(
                {
                    name: round(value, 3) if isinstance(value, float) else value
                    for name, value in row.items()
                },
                flush=True,
            )
    show(summarise({"cases": rows}))
    write("pcdvae_speed", {"cases": rows}, summarise)


def summarise(parts: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Medians, the goals, and growth from 16 to 54 atoms and from batch 4 to 16."""
    found: dict[str, Any] = {}

    def of(what: str, precision: str, atoms: int, batch: int) -> list[Row]:
        wanted = asdict(Case(what, precision, atoms, batch))
        return [
            row
            for row in parts["cases"]
            if all(row[name] == value for name, value in wanted.items())
        ]

    for case in cases():
        mine = of(**asdict(case))
        label = f"{case.what}, {case.atoms} atoms, batch {case.batch}, {case.precision}"
        found[f"{label} (s)"] = middle(mine, "seconds")
        if case.atoms == 54 and case.batch == 16:
            found[f"{label}: peak memory (GB)"] = middle(mine, "gigabytes")
            if mine[0]["products"] is not None:
                found[f"{label}: share of matrix products"] = middle(mine, "products")

    def seconds(what: str, precision: str = "reduced", atoms: int = 54, batch: int = 16) -> float:
        return middle(of(what, precision, atoms, batch), "seconds")

    for what in ("training step", "decoder call"):
        best = min(PRECISIONS, key=lambda precision, what=what: seconds(what, precision))  # type: ignore[misc]
        found[f"{what}, 54 atoms, batch 16, fastest: {best} (s)"] = goal(
            seconds(what, best), GOALS[what], at_least=False
        )
        found[f"{what}: 54 atoms over 16, batch 16"] = seconds(what) / seconds(what, atoms=16)
        found[f"{what}: batch 16 over 4, 54 atoms"] = seconds(what) / seconds(what, batch=4)
    found["16 crystals of 54 atoms (s)"] = goal(
        seconds("16 crystals"), GOALS["16 crystals"], at_least=False
    )
    largest = [
        case
        for case in cases()
        if case.atoms == 54 and case.batch == 16 and case.precision != "single"
    ]
    most = max(middle(of(**asdict(case)), "gigabytes") for case in largest)
    found["peak memory, 54 atoms, batch 16, reduced precision (GB)"] = goal(
        most, MOST_MEMORY, at_least=False
    )
    return found


if __name__ == "__main__":
    main()
