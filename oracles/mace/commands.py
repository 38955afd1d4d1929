"""The commands ``oreloop train mace`` and ``oreloop evaluate mace``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from campaign.errors import InputError
from campaign.views.terminal import PlainConsole


def train(
    data: Annotated[
        Path,
        typer.Argument(
            help="A campaign's folder, or a file with energies and forces (extxyz, ASE database)."
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            help="File to write: .safetensors for oreloop, .model for MACE's own tools."
        ),
    ],
    oracle: Annotated[
        str | None,
        typer.Option(help="Campaign: whose labels; needed where several oracles give forces."),
    ] = None,
    foundation: Annotated[Path | None, typer.Option(help="A MACE file to fine-tune.")] = None,
    members: Annotated[
        int, typer.Option(min=1, help="Networks; more than one make a committee.")
    ] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 180,
    channels: Annotated[int, typer.Option(min=1, help="Features per atom of a new network.")] = 32,
    layers: Annotated[
        int, typer.Option(min=1, max=4, help="Message-passing layers of a new network.")
    ] = 2,
    cutoff: Annotated[
        float, typer.Option(help="Radius of the neighbourhoods (angstrom) of a new network.")
    ] = 4.5,
    held_out: Annotated[
        float, typer.Option(min=0.01, max=0.5, help="Share of the data that is kept for the error.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and of what is held out.")] = 0,
) -> None:
    """Train MACE on labelled crystals, from scratch or from a foundation model, and tell its error
    on what it did not see.
    """
    import numpy as np
    import torch

    from campaign.checkpoints import checkpoint_to_bytes
    from campaign.files import write_whole
    from oracles.mace import network as networks
    from oracles.mace.files import sha256_of
    from oracles.mace.frames import held_out as held_out_of
    from oracles.mace.frames import read_frames
    from oracles.mace.network import ArchitectureConfig
    from oracles.mace.store import SUFFIX, Origin, to_checkpoint
    from oracles.mace.training import TrainingConfig, errors
    from oracles.mace.training import train as fit

    if target.suffix not in (SUFFIX, ".model"):
        raise InputError(f"{target} should end in {SUFFIX} or .model")
    if target.suffix == ".model" and members > 1:
        raise InputError(
            "a .model file holds one network",
            hint=f"write a committee to a {SUFFIX} file, or set --members 1",
        )
    console = PlainConsole()
    if data.is_dir():
        frames = _frames_of_campaign(data, oracle)
    else:
        reading = read_frames(data)
        frames = list(reading.frames)
        for word in reading.words:
            console.print(word, highlight=False, markup=False)
    rng = np.random.default_rng(seed)
    kept, known = held_out_of(frames, held_out, rng) if frames else ([], [])
    if len(known) < 2:
        raise InputError(
            f"{data} holds {len(frames)} labelled crystals that differ, too few to train on "
            "and to judge by"
        )
    if foundation is not None:
        origin = Origin(
            foundation=str(foundation.resolve()), foundation_sha256=sha256_of(foundation)
        )
    else:
        numbers = sorted({int(number) for frame in frames for number in frame.crystal.numbers})
        energies = np.array([frame.energy for frame in known])
        scales = networks.scales_of(
            [f.crystal for f in known], energies, [f.forces for f in known], numbers, cutoff
        )
        origin = Origin(
            architecture=ArchitectureConfig(channels=channels, layers=layers, cutoff=cutoff),
            scales=scales,
        )
    config = TrainingConfig(epochs=epochs)
    trained = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("training", total=members * epochs)
        for member in range(members):
            network = origin.blank(seed + member)
            trained.append(
                fit(
                    network,
                    known,
                    config,
                    rng=rng,
                    progress=lambda epoch, loss: progress.advance(task),
                )
            )
    found = [errors(network, kept) for network in trained]
    metrics = {
        "trained_on": float(len(known)),
        "held_out": float(len(kept)),
        "held_out_forces": float(np.mean([error.forces for error in found])),
        "held_out_energy_mev": 1000 * float(np.mean([error.energy for error in found])),
    }
    if target.suffix == SUFFIX:
        write_whole(target, checkpoint_to_bytes(to_checkpoint(trained, origin, metrics)))
    else:
        part = target.with_name(f".{target.name}.part")
        torch.save(trained[0], part)
        part.replace(target)
    console.print(
        f"{target}: trained on {len(known)} crystals; root mean square error on {len(kept)} "
        "others: "
        f"{metrics['held_out_energy_mev']:.1f} meV/atom, "
        f"{1000 * metrics['held_out_forces']:.0f} meV/angstrom"
    )


def evaluate(
    model: Annotated[Path, typer.Argument(help="A MACE file or a committee of ours.")],
    structures: Annotated[
        Path,
        typer.Argument(
            help="Crystals: CIF, POSCAR, extxyz, ASE database; their errors are told where "
            "they have labels."
        ),
    ],
    target: Annotated[
        Path | None, typer.Option(help="extxyz file to write the predictions to.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Crystals computed at once.")] = 32,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Energies, forces and stresses of many crystals at once from a MACE model."""
    import numpy as np
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    from campaign.reading.structures import read_structures
    from oracles.mace import network as networks
    from oracles.mace.frames import read_frames
    from oracles.mace.store import read_models
    from oracles.mace.training import errors

    console = PlainConsole()
    members, _ = read_models(model, device)
    entries = list(read_structures(structures))
    crystals = [entry.crystal for entry in entries]
    found = [
        networks.predict(member, crystals, batch_size=batch, device=device) for member in members
    ]
    if all({"energy", "forces"} <= entry.info.keys() for entry in entries):
        frames = read_frames(structures).frames
        figures = [errors(member, frames, batch_size=batch) for member in members]
        console.print(
            f"root mean square errors on {len(crystals)} crystals: "
            f"{1000 * np.mean([e.energy for e in figures]):.1f} meV/atom, "
            f"{1000 * np.mean([e.forces for e in figures]):.0f} meV/angstrom"
        )
    if target is not None:
        images = [crystal.atoms for crystal in crystals]
        for i, atoms in enumerate(images):
            kept = {
                name: value
                for name, value in entries[i].info.items()
                if isinstance(value, str | int | float)
            }
            atoms.info |= {name: value for name, value in kept.items() if name != "energy"}
            predictions = [member[i] for member in found]
            atoms.calc = SinglePointCalculator(
                atoms,
                energy=float(np.mean([p.energy for p in predictions])),
                forces=np.mean([p.forces for p in predictions], axis=0),
                stress=np.mean([p.stress for p in predictions], axis=0)[
                    [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]
                ],
            )
        part = target.with_name(f".{target.name}.part")
        write(part, images, format="extxyz")
        part.replace(target)
        console.print(f"wrote {target}")
    console.print(f"{len(crystals)} crystals, {len(members)} network(s)")


def _frames_of_campaign(folder: Path, oracle: str | None) -> list:  # type: ignore[type-arg]
    from campaign.api import Campaign
    from campaign.ledger.dataset import dataset_before
    from oracles.mace.committee import frames_of

    campaign = Campaign.open(folder)
    with closing(campaign.reader()) as reader:
        state = reader.fold()
        giving = sorted(
            {
                label.oracle
                for label in state.labels.values()
                if any(row.quantity == "forces" for row in label.observations)
            }
        )
        if oracle is None and len(giving) != 1:
            raise InputError(
                f"{folder}: {', '.join(giving) + ' give' if giving else 'no oracle gives'} forces",
                hint="name one with --oracle" if giving else "set measure: [forces] of an oracle",
            )
        dataset = dataset_before(reader, state, state.sequence + 1, oracle or giving[0])
        return frames_of(dataset.labelled)
