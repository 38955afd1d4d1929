"""The command ``oreloop train pcdvae``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from campaign.errors import InputError
from campaign.terminal import PlainConsole
from campaign.types import Checkpoint, LabelledCandidate
from generators.commands import labelled_of_file, opened

Subset = Literal["all", "random", "improved"]


def train(
    source: Annotated[Path, typer.Argument(help="A campaign's folder, or crystals with their properties in a file that ASE reads.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    quantity: Annotated[str, typer.Option(help="The property to learn: a label's name, or a key of the file's info.")] = "bulk_modulus",
    oracle: Annotated[str | None, typer.Option(help="Campaign: whose labels; needed where several oracles give the quantity.")] = None,
    subset: Annotated[
        str,
        typer.Option("--set", help="all; of an alloy_dataset campaign also random orderings, or those and each search's best."),
    ] = "improved",
    preset: Annotated[str, typer.Option(help="Sizes of the network: paper, or small for CPUs.")] = "small",
    phases: Annotated[str, typer.Option(help="Phases told apart, joined by commas; empty for plain CDVAE.")] = "fcc,bcc",
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the data.")] = 300,
    patience: Annotated[int, typer.Option(min=1, help="Passes without a better validation loss before the end.")] = 60,
    batch: Annotated[int, typer.Option(min=1, help="Crystals per step.")] = 64,
    rate: Annotated[float, typer.Option(help="Adam's rate.")] = 1e-3,
    exact: Annotated[bool, typer.Option("--full-precision", help="Single precision all through, in place of bfloat16 products.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of weights, order and noise.")] = 0,
) -> None:
    """Train P-CDVAE on labelled crystals. What an interrupted run did is kept beside the target, and the next run goes on."""
    from campaign.artifacts import write_whole
    from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
    from generators.pcdvae.data import check_phases, examples_of
    from generators.pcdvae.model import PRESETS
    from generators.pcdvae.store import hash_of, tables_of, to_checkpoint
    from generators.pcdvae.train import Epoch, TrainingSettings, shape_of
    from generators.pcdvae.train import train as fit

    if target.suffix != ".safetensors":
        raise InputError(f"{target} should end in .safetensors")
    if preset not in PRESETS:
        raise InputError(f"expected --preset {' or '.join(PRESETS)}, got {preset}")
    if subset not in ("all", "random", "improved"):
        raise InputError(f"expected --set all, random or improved, got {subset}")
    names = tuple(name.strip() for name in phases.split(",") if name.strip())
    check_phases(names)
    labelled = labelled_of_campaign(source, quantity, oracle, subset) if source.is_dir() else labelled_of_file(source, quantity)
    examples = examples_of(labelled, [quantity], names)
    if len(examples) < 2:
        raise InputError(f"expected at least two crystals with {quantity} in {source}, got {len(examples)}")
    settings = TrainingSettings(
        preset=preset,
        epochs=epochs,
        patience=patience,
        batch_size=batch,
        rate=rate,
        reduced_precision=not exact,
    )
    data = hash_of(examples)
    resume = target.with_name(f".{target.name}.{data[:12]}-{preset}-{len(names)}-{seed}.part")
    console = PlainConsole()
    columns = (TextColumn("epoch {task.completed} of {task.total}"), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=epochs)

        def progress(epoch: Epoch) -> None:
            told = f"loss {epoch.training:.3f}, validation {epoch.validation:.3f}, rate {epoch.rate:.1e}"
            bar.update(task, completed=epoch.index, description=told)

        def keep(state: Checkpoint) -> None:
            write_whole(resume, checkpoint_to_bytes(state))

        begun = checkpoint_from_bytes(resume.read_bytes()) if resume.exists() else None
        shape = shape_of(examples, len(names))
        trained = fit(examples, settings, seed=seed, shape=shape, progress=progress, resume=begun, keep=keep, device=device)
    checkpoint = to_checkpoint(trained.model.cpu(), tables_of(examples, names, [quantity]), data, trained.metrics)
    write_whole(target, checkpoint_to_bytes(checkpoint))
    resume.unlink(missing_ok=True)
    parts = ", ".join(f"{name.removeprefix('validation_')} {value:.3g}" for name, value in trained.metrics.items())
    console.print(f"{target}: trained on {len(examples)} crystals; on held-out compositions: {parts}")


def labelled_of_campaign(folder: Path, quantity: str, oracle: str | None, subset: str) -> list[LabelledCandidate]:
    """Of one oracle. ``random``: without what a local search proposed; ``improved``: with the best that each local search found."""
    campaign, state, labelled = opened(folder, quantity, oracle)
    if subset == "all":
        return labelled
    objective = campaign.objective
    searched: defaultdict[str, list[LabelledCandidate]] = defaultdict(list)
    kept = []
    for item in labelled:
        conditions = [dict(row.condition) for _, row in state.candidates[item.candidate.id].proposals]
        bases = [condition["base"] for condition in conditions if "base" in condition]
        if len(bases) < len(conditions):
            kept.append(item)
        for base in bases:
            searched[str(base)].append(item)
    if subset == "random":
        return kept
    best = [max(items, key=lambda item: objective.gain(item.values[quantity])) for items in searched.values()]
    known = {item.candidate.id for item in kept}
    return kept + list({item.candidate.id: item for item in best if item.candidate.id not in known}.values())
