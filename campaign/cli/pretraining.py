"""The command ``oreloop train``: a generator that learns, ours or a user's, is trained outside a
campaign, through the port ``Trainable``.

What it writes is a checkpoint as a campaign keeps them, which ``weights:`` takes where a generator
has that setting.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from campaign.cli.registering import Registry, registered
from campaign.errors import InputError
from campaign.reading.arguments import settings_of, words_of_all
from campaign.views.terminal import PlainConsole, progress

if TYPE_CHECKING:
    from campaign.api import Campaign
    from campaign.ledger import CampaignState
    from campaign.protocols import PluginSpec
    from campaign.types import Checkpoint, LabelledCandidate, Objective, SearchSpace

SUFFIX = ".safetensors"
Subset = Literal["all", "random", "improved"]
Tell = Callable[[int, int, str], None]


def train(
    generator: Annotated[
        str, typer.Argument(help="A generator that learns: its name, or module:Class beside here.")
    ],
    source: Annotated[
        Path,
        typer.Argument(
            help="A campaign's folder; or crystals: CIF, POSCAR, extxyz, an ASE database, a "
            "folder of these, a CSV."
        ),
    ],
    target: Annotated[
        Path, typer.Argument(help=f"The {SUFFIX} file to write, which `weights:` takes.")
    ],
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of the generator, as in training.epochs=300; may be given several "
            "times.",
        ),
    ] = None,
    quantity: Annotated[
        str | None, typer.Option(help="The label to learn; none: crystals alone are learned.")
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="What the quantity is called in the file, where it has another name."),
    ] = None,
    direction: Annotated[
        str, typer.Option(help="Which values of the quantity are better: maximize or minimize.")
    ] = "minimize",
    oracle: Annotated[
        str | None,
        typer.Option(
            help="Campaign: whose labels; needed where several oracles give the quantity."
        ),
    ] = None,
    subset: Annotated[
        str,
        typer.Option(
            help="Campaign: all; random, without what a local search proposed; improved, these "
            "and each search's best."
        ),
    ] = "all",
    elements: Annotated[
        list[str] | None,
        typer.Option(
            "--elements",
            "--element",
            help="Elements of the search space; those of the crystals by default.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and noise.")] = 0,
    register: Annotated[
        str | None,
        typer.Option(
            help="NAME@ALIAS of MLflow's model registry, as in pcdvae-nifecr@production, to "
            "register the weights under."
        ),
    ] = None,
    registry: Registry = None,
) -> None:
    """Train a generator on crystals. What an interrupted run did is kept beside the target where
    the generator can go on from it.
    """
    from campaign import plugins
    from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
    from campaign.files import write_whole
    from campaign.protocols import PluginSpec
    from campaign.seeds import content_hash
    from campaign.tracking.registry import registry_of, target_of
    from campaign.types import ENERGY_PER_ATOM, Objective, SearchSpace

    if target.suffix != SUFFIX:
        raise InputError(f"{target} should end in {SUFFIX}")
    for name, value, known in (
        ("direction", direction, ("maximize", "minimize")),
        ("subset", subset, ("all", "random", "improved")),
    ):
        if value not in known:
            raise InputError(f"expected --{name} {' or '.join(known)}, got {value}")
    if register is not None:
        target_of(register)
        registry_of(registry, Path.cwd())
    labelled = labelled_of(source, quantity, column=column, oracle=oracle, subset=subset)  # type: ignore[arg-type]
    if not labelled:
        raise InputError(f"{source} holds no crystals{f' with {quantity}' if quantity else ''}")
    symbols = words_of_all(elements or []) or sorted(
        {symbol for item in labelled for symbol in item.candidate.crystal.symbols}
    )
    spec = PluginSpec(
        group="generators",
        use=generator,
        params=settings_of(params or []),
        module_folder=str(Path.cwd()),
        elements=tuple(symbols),
    )
    plugins.build(spec)
    space = SearchSpace(tuple(symbols))
    objective = Objective(quantity or ENERGY_PER_ATOM.name, direction)  # type: ignore[arg-type]
    labels = [[item.candidate.id, dict(item.values)] for item in labelled]
    key = content_hash([generator, dict(spec.params), symbols, quantity, direction, seed, labels])[
        :16
    ]
    part = target.with_name(f".{target.name}.{key}.part")
    console, errors = PlainConsole(), PlainConsole(stderr=True)
    with progress(errors) as bar:
        task = bar.add_task(generator, total=None)

        def tell(step: int, steps: int, told: str) -> None:
            bar.update(
                task,
                completed=step,
                total=steps,
                description=f"{generator}: {told}" if told else generator,
            )

        begun = checkpoint_from_bytes(part.read_bytes()) if part.exists() else None
        made = trained(
            spec,
            labelled,
            space,
            objective,
            seed,
            tell=tell,
            keep=lambda state: write_whole(part, checkpoint_to_bytes(state)),
            begun=begun,
        )
    write_whole(target, checkpoint_to_bytes(made))
    part.unlink(missing_ok=True)
    figures = ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}"
        for name, value in made.metrics.items()
        if value == value
    )
    console.print(
        f"{target}: {generator} trained on {len(labelled)} "
        f"crystals{f'; {figures}' if figures else ''}"
    )
    if register is not None:
        registered(target.read_bytes(), register, registry)


def trained(
    spec: PluginSpec,
    labelled: Sequence[LabelledCandidate],
    space: SearchSpace,
    objective: Objective,
    seed: int,
    *,
    tell: Tell | None = None,
    keep: Callable[[Checkpoint], None] | None = None,
    begun: Checkpoint | None = None,
) -> Checkpoint:
    """What a generator learns. ``tell``, ``keep`` and ``begun`` are its ``progress``, ``keep`` and
    ``begun``, of which it gets those that it takes (see ``TrainsLong``).

    Raises InputError where it does not learn, or gives no checkpoint.
    """
    from campaign import plugins
    from campaign.blame import theirs
    from campaign.protocols import GenerationContext, Trainable
    from campaign.seeds import generator, library_seeds, seed_sequence, stream_key
    from campaign.types import Checkpoint

    stream = stream_key(seed, f"pretrain:{spec.use}", 0)
    with library_seeds(int(seed_sequence(stream).generate_state(1)[0])), theirs():
        component = plugins.build(spec)
        if not isinstance(component, Trainable):
            raise InputError(
                f"the generator {spec.use} does not learn",
                hint="one that learns has train and is_improvement",
            )
        takes = inspect.signature(component.train).parameters
        further: dict[str, Any] = {"progress": tell, "keep": keep, "begun": begun}
        further = {
            name: value for name, value in further.items() if name in takes and value is not None
        }
        context = GenerationContext(space=space, objective=objective, labelled=labelled)
        made: object = component.train(labelled, rng=generator(stream), context=context, **further)
    if not isinstance(made, Checkpoint):
        raise InputError(
            f"the generator {spec.use} gave {type(made).__name__} by train, expected a Checkpoint"
        )
    return made


def labelled_of(
    source: Path,
    quantity: str | None,
    *,
    column: str | None = None,
    oracle: str | None = None,
    subset: Subset = "all",
) -> list[LabelledCandidate]:
    """Crystals with a quantity, or without labels where none is named, by id: of a campaign's
    folder, or of files of structures or a CSV.

    ``column``: what files call the quantity; ``oracle`` and ``subset``: see
    ``labelled_of_campaign``. Raises InputError where the source cannot be read, or a structure of a
    file has no such value.
    """
    from campaign.api import CONFIG_COPY

    if not (source / CONFIG_COPY).exists():
        found = labelled_of_file(source, quantity, column)
    elif quantity is None:
        raise InputError(
            f"{source} is a campaign: say which label is to be learned",
            hint="name one with --quantity",
        )
    else:
        found = labelled_of_campaign(source, quantity, oracle, subset)
    return sorted(
        {item.candidate.id: item for item in found}.values(), key=lambda item: item.candidate.id
    )


def opened(
    folder: Path, quantity: str, oracle: str | None = None
) -> tuple[Campaign, CampaignState, list[LabelledCandidate]]:
    """A campaign, its state and its labels of a quantity by one oracle. Raises InputError where
    none or several give it.
    """
    from campaign.api import Campaign
    from campaign.ledger.dataset import dataset_before

    campaign = Campaign.open(folder)
    with closing(campaign.reader()) as reader:
        state = reader.fold()
        giving = sorted(
            {label.oracle for label in state.labels.values() if quantity in label.values}
        )
        if oracle is None and len(giving) != 1:
            raise InputError(
                f"{folder}: {'no oracle gives' if not giving else ', '.join(giving) + ' give'} "
                f"{quantity}",
                hint="name one: --oracle",
            )
        dataset = dataset_before(reader, state, state.sequence + 1, oracle or giving[0])
    return campaign, state, [item for item in dataset.labelled if quantity in item.values]


def labelled_of_campaign(
    folder: Path, quantity: str, oracle: str | None = None, subset: Subset = "all"
) -> list[LabelledCandidate]:
    """Of one oracle. ``random``: without what a local search proposed; ``improved``: with the best
    that each local search found.
    """
    campaign, state, labelled = opened(folder, quantity, oracle)
    if subset == "all":
        return labelled
    objective = campaign.objective
    searched: defaultdict[str, list[LabelledCandidate]] = defaultdict(list)
    kept = []
    for item in labelled:
        conditions = [
            dict(row.condition) for _, row in state.candidates[item.candidate.id].proposals
        ]
        bases = [condition["base"] for condition in conditions if "base" in condition]
        if len(bases) < len(conditions):
            kept.append(item)
        for base in bases:
            searched[str(base)].append(item)
    if subset == "random":
        return kept
    best = [
        max(items, key=lambda item: objective.gain(item.values[quantity]))
        for items in searched.values()
    ]
    known = {item.candidate.id for item in kept}
    return kept + list(
        {item.candidate.id: item for item in best if item.candidate.id not in known}.values()
    )


def labelled_of_file(
    path: Path, quantity: str | None, column: str | None = None
) -> list[LabelledCandidate]:
    """Raises InputError where the file cannot be read, or a structure has no such value. Energies
    of whole cells become those per atom.
    """
    from campaign.config.schema import SourceConfig
    from campaign.reading.tables import TOTALS
    from campaign.rounds.sources import HOUSE_UNITS
    from campaign.rounds.sources import read as read_source
    from campaign.types import ENERGY_PER_ATOM, Candidate, LabelledCandidate, Quantity

    source = SourceConfig(
        path=str(path), columns={quantity: column or quantity} if quantity is not None else {}
    )
    units = HOUSE_UNITS | dict.fromkeys(TOTALS, ENERGY_PER_ATOM.unit)
    quantities = {quantity: Quantity(quantity, units[quantity])} if quantity in units else {}
    entries = read_source(path, source, quantities=quantities)
    return [
        LabelledCandidate(candidate=Candidate(entry.crystal), values=entry.values)
        for entry in entries
    ]
