"""The command ``oreloop train flow``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from campaign.errors import InputError
from campaign.reading.tables import TOTALS
from campaign.types import ENERGY_PER_ATOM, FORMATION_ENERGY
from campaign.views.terminal import PlainConsole

MODELS = ("equivariant", "flow", "diffusion", "regression", "flow_modifier", "diffusion_modifier")


def train(
    source: Annotated[
        str,
        typer.Argument(
            help="A campaign's folder; a CSV with CIFs or a file that ASE reads; or an "
            "OPTIMADE provider's address."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    model: Annotated[str, typer.Option(help=f"Which model: {', '.join(MODELS)}.")] = "equivariant",
    energy: Annotated[
        str,
        typer.Option(
            help="The energy (eV/atom): a label's name, a file's key or column, or a "
            "provider's field."
        ),
    ] = "formation_energy_per_atom",
    query: Annotated[
        str,
        typer.Option(
            "--filter", help='OPTIMADE: which structures, such as \'elements HAS ONLY "Al","Ni"\'.'
        ),
    ] = "",
    most: Annotated[int, typer.Option(min=1, help="OPTIMADE: most structures.")] = 1000,
    variant: Annotated[
        str, typer.Option(help="flow: as in the paper, or oreloop's, which learns faster.")
    ] = "oreloop",
    preset: Annotated[
        str, typer.Option(help="Sizes of the matrix UNet: paper, or small for CPUs.")
    ] = "small",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimiser.")] = 5000,
    atoms: Annotated[
        tuple[int, int], typer.Option(help="Fewest and most atoms of a primitive cell.")
    ] = (2, 60),
    group: Annotated[int, typer.Option(min=1, help="Fewest polymorphs of a formula.")] = 7,
    share: Annotated[
        float,
        typer.Option(
            help="Minimum share (1) of the crystals that an element or a space group needs."
        ),
    ] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and noise.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train a conditional generator on polymorphs, a tenth of whose formulas is held out to judge
    it by.

    Energies are formation energies, but for those under the name energy_per_atom.
    """
    import numpy as np

    from campaign.checkpoints import checkpoint_to_bytes
    from campaign.files import write_whole
    from generators.matrix_unet.model import Design
    from generators.matrix_unet.plugin import validation_loss
    from generators.matrix_unet.store import to_checkpoint
    from generators.matrix_unet.train import (
        MATRIX_RATE,
        SYMMETRIC_RATE,
        train_matrix,
        train_symmetric,
    )
    from generators.matrix_unet.unet import PRESETS
    from generators.networks.training import Progress, Schedule
    from generators.polymorphs import Filters, polymorphs_of_labelled

    for name, value, known in (
        ("model", model, MODELS),
        ("preset", preset, tuple(PRESETS)),
        ("variant", variant, ("paper", "oreloop")),
        ("device", device, ("cpu", "cuda")),
    ):
        if value not in known:
            raise InputError(f"expected --{name} {' or '.join(known)}, got {value}")
    if target.suffix != ".safetensors":
        raise InputError(f"{target} should end in .safetensors")
    from campaign.cli.pretraining import labelled_of
    from generators.optimade import labelled_of_provider

    quantity = (
        ENERGY_PER_ATOM.name if energy in (ENERGY_PER_ATOM.name, *TOTALS) else FORMATION_ENERGY.name
    )
    if source.startswith(("http://", "https://")):
        labelled, quantity = (
            labelled_of_provider(source, query, energy, most),
            FORMATION_ENERGY.name,
        )
    else:
        labelled = [
            replace(item, values={quantity: item.values[energy]})
            for item in labelled_of(Path(source), energy)
        ]
    data = polymorphs_of_labelled(labelled, quantity)
    data = data.filtered(Filters(atoms, group, share))
    learned, held = data.split_by_formula(0.1, np.random.default_rng(0))
    console = PlainConsole()
    columns = (
        TextColumn("step {task.completed} of {task.total}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=steps)

        def told(progress: Progress) -> None:
            bar.update(task, completed=progress.step, description=f"loss {progress.loss:.3f}")

        if model == "equivariant":
            trained = train_symmetric(
                learned,
                Schedule(steps, SYMMETRIC_RATE, with_muon=True),
                seed=seed,
                progress=told,
                device=device,
            )
        else:
            method, _, modifies = model.partition("_")
            is_of_oreloop = variant == "oreloop" and method == "flow" and not modifies
            design = Design(
                method,  # type: ignore[arg-type]
                modifies=bool(modifies) or method == "regression",
                variant="oreloop" if is_of_oreloop else "paper",
                preset=preset,  # type: ignore[arg-type]
            )
            trained = train_matrix(
                learned,
                design,
                Schedule(steps, MATRIX_RATE),
                seed=seed,
                progress=told,
                device=device,
            )
    loss = validation_loss(trained, held)
    write_whole(
        target, checkpoint_to_bytes(to_checkpoint(trained, data.key, {"validation_loss": loss}))
    )
    console.print(
        f"{target}: {model} trained on {len(learned)} crystals of {len(learned.groups)} formulas; "
        f"loss {trained.metrics['training_loss']:.3f}, on {len(held.groups)} held-out formulas "
        f"{loss:.3f}"
    )
