"""The command ``oreloop nets``, the ranked list of a campaign's nets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from campaign.errors import InputError
from campaign.types import ENERGY_PER_ATOM
from campaign.views.terminal import PlainConsole

if TYPE_CHECKING:
    from campaign.api import Campaign
    from campaign.types import Crystal
    from generators.cvae.environment import Environment

WINDOW = 0.55
"""Energy (eV/atom) above the reference below which a net counts as low in energy (O. G. Ridwan et
al., section 4.1).
"""

_SAME_ENERGY, _SAME_VOLUME = 0.002, 1.02
"""Difference (eV/atom) and ratio (1) below which two relaxed crystals may be one."""


@dataclass(frozen=True)
class Net:
    """A labelled crystal after relaxation. energy: eV/atom above the reference. key: of its net;
    None where its bonds changed.
    """

    candidate: str
    crystal: Crystal
    energy: float
    key: str | None
    dimension: int
    generator: str
    name: str = ""


def nets_of(
    folder: Path, known: Path | None = None, oracle: str | None = None
) -> tuple[list[Net], dict[str, int]]:
    """The campaign's nets, the lowest energy first, and the counts of the paper. Raises InputError
    where it has no such generator.
    """
    from campaign import plugins
    from campaign.cli.pretraining import opened
    from campaign.crystals.matching import Matcher

    campaign, state, labelled = opened(folder, ENERGY_PER_ATOM.name, oracle)
    environment = _environment_of(campaign)
    giving = {
        label.oracle for label in state.labels.values() if ENERGY_PER_ATOM.name in label.values
    }
    level = next(
        item for item in campaign.loaded.config.oracles if item.label == (oracle or min(giving))
    )
    answer = plugins.build(campaign.loaded.spec("oracles", level)).evaluate(
        environment.references[0]
    )
    if answer.failure is not None:
        raise InputError(f"{level.label} has no energy of the target: {answer.failure.message}")
    ground = answer.value(ENERGY_PER_ATOM.name)
    names = _names_of(known, environment) if known is not None else {}
    found = []
    for item in labelled:
        crystal = item.relaxed or item.candidate.crystal
        if not set(crystal.numbers.tolist()) <= set(environment.species):
            continue
        key, dimension = net_of_crystal(crystal, environment)
        rows = state.candidates[item.candidate.id].proposals
        found.append(
            Net(
                item.candidate.id,
                crystal,
                item.values[ENERGY_PER_ATOM.name] - ground,
                key,
                dimension,
                ", ".join(dict.fromkeys(event.generator for event, _ in rows)),
                names.get(key or "", ""),
            )
        )
    found.sort(key=lambda net: (net.energy, net.candidate))
    unique: dict[str, Net] = {}
    for net in found:
        if net.key is not None:
            unique.setdefault(net.key, net)
    matcher = Matcher(0.2, 0.3, 5.0)
    kept: list[Net] = []
    for net in unique.values():
        if not any(
            _may_be_same(net, other) and matcher.is_same(net.crystal, other.crystal)
            for other in kept
        ):
            kept.append(net)
    counts = {
        "labelled": len(found),
        "with the target's bonds after relaxation": sum(net.key is not None for net in found),
        "unique": len(kept),
        "unique, three-dimensional": sum(net.dimension == 3 for net in kept),
        f"unique, within {WINDOW} eV/atom": sum(net.energy <= WINDOW for net in kept),
        "unique, three-dimensional, within the window": sum(
            net.dimension == 3 and net.energy <= WINDOW for net in kept
        ),
    }
    if known is not None:
        counts[f"of the {len(names)} known nets"] = sum(bool(net.name) for net in kept)
    return kept, counts


def _may_be_same(one: Net, other: Net) -> bool:
    """Whether atoms, energy and volume are near enough for two relaxed crystals to be one."""
    volumes = one.crystal.volume, other.crystal.volume
    return (
        len(one.crystal) == len(other.crystal)
        and abs(one.energy - other.energy) < _SAME_ENERGY
        and max(volumes) < _SAME_VOLUME * min(volumes)
    )


def net_of_crystal(crystal: Crystal, environment: Environment) -> tuple[str | None, int]:
    """The key of its net, None where an atom has not the target's bonds, and the least dimension of
    its components.
    """
    import numpy as np
    import spglib

    from campaign.crystals.topology import dimensions, net_key, net_of

    bonds, kinds = net_of(crystal, environment.bonds_by_numbers)
    dimension = min(dimensions(len(crystal), bonds))
    wanted = np.array(
        [
            environment.coordination[environment.species.index(number)]
            for number in crystal.numbers.tolist()
        ]
    )
    if (np.bincount(bonds[:, 0], minlength=len(crystal)) != wanted).any():
        return None, dimension
    cell = (crystal.lattice, crystal.fractional, crystal.numbers.astype(int))
    found = spglib.get_symmetry_dataset(cell, symprec=0.01)
    alike = found.crystallographic_orbits if found is not None else np.arange(len(crystal))
    roots, counts = np.unique(alike, return_counts=True)
    return net_key(len(crystal), bonds, kinds, roots.tolist(), counts.tolist()), dimension


def _environment_of(campaign: Campaign) -> Environment:
    from campaign import plugins
    from generators.cvae.plugin import RandomEnvironment

    for item in campaign.loaded.config.generators:
        made = plugins.build(campaign.loaded.spec("generators", item))
        if isinstance(made, RandomEnvironment):
            return made.environment
    raise InputError(
        "the campaign has no generator with a target environment",
        hint="use cvae, tabular_vae or random_environment",
    )


def _names_of(path: Path, environment: Environment) -> dict[str, str]:
    from campaign.reading.structures import read_structures

    if path.suffix != ".db":
        raise InputError(f"expected an ASE database of known nets, got {path}")
    if not path.is_file():
        raise InputError(f"there is no {path}", hint="--known takes an ASE database that exists")
    found: dict[str, str] = {}
    for entry in read_structures(path, is_judged=False):
        key, _ = net_of_crystal(entry.crystal, environment)
        if key is not None:
            name, row = str(entry.info.get("topology", "aaa")), entry.where.rpartition(", ")[2]
            found.setdefault(key, row if name == "aaa" else name)
    return found


def nets(
    folder: Annotated[Path, typer.Argument(help="A campaign's folder.")],
    known: Annotated[
        Path | None,
        typer.Option(
            help="ASE database of known nets, whose names are given to those found again."
        ),
    ] = None,
    oracle: Annotated[
        str | None, typer.Option(help="Level; the only one with energies by default.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Maximum number of nets that are listed.")] = 25,
) -> None:
    """The nets of a campaign towards a local environment, ranked by energy above the target, and
    how many there are of each kind.

    Where a Julia with CrystalNets.jl is found, the nets that are listed get its names too.
    """
    from generators.cvae import crystal_nets
    from generators.symmetry import space_group_of

    found, counts = nets_of(folder, known, oracle)
    console = PlainConsole()
    labels = crystal_nets.names([net.crystal for net in found[:most]])
    columns = (
        "rank",
        "energy above the target (eV/atom)",
        "space group",
        "atoms",
        "volume (angstrom^3/atom)",
        "net",
        "candidate",
    )
    table = Table(*columns, *(["CrystalNets.jl"] if any(labels) else []))
    for rank, (net, label) in enumerate(zip(found[:most], labels, strict=True), 1):
        volume = f"{net.crystal.volume / len(net.crystal):.2f}"
        name = f"{net.name or (net.key or '')[:8]} ({net.dimension}D)"
        row = (
            str(rank),
            f"{net.energy:.4f}",
            str(space_group_of(net.crystal, 0.05)),
            str(len(net.crystal)),
            volume,
            name,
            net.candidate,
        )
        table.add_row(*row, *([label] if any(labels) else []))
    console.print(table)
    for what, count in counts.items():
        console.print(f"{what}: {count}")
    for generator, count in Counter(
        net.generator for net in found if net.energy <= WINDOW
    ).most_common():
        console.print(f"within the window, by {generator}: {count}")
