"""The command ``oreloop evaluate crystals``, the metrics of any generator's crystals; and labelled crystals for the commands that train."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from campaign.errors import InputError
from campaign.terminal import PlainConsole

if TYPE_CHECKING:
    from campaign.api import Campaign
    from campaign.ledger import CampaignState
    from campaign.types import Crystal, LabelledCandidate


def evaluate(
    made: Annotated[Path, typer.Argument(help="Crystals: CIF, POSCAR, extxyz, an ASE database, or a folder of these.")],
    wanted: Annotated[Path | None, typer.Option(help="As many crystals that they should be, in the same order.")] = None,
    known: Annotated[Path | None, typer.Option(help="Crystals that are known: what matches none of them is novel.")] = None,
    fingerprints: Annotated[bool, typer.Option(help="With --wanted: CrystalNN fingerprint distances, about 10 ms per atom.")] = True,
) -> None:
    """Validity, uniqueness, novelty and phases of crystals, and how near they come to wanted ones."""
    import numpy as np

    from campaign.crystals.phases import Phase
    from generators.metrics import generation, phase_share, reconstruction

    crystals = _read(made)
    rows = dict(generation(crystals, _read(known) if known is not None else ()))
    if known is None:
        rows.pop("novel")
    rows |= {f"{phase.name.lower()} sites": float(np.mean([phase_share(crystal, phase.name) for crystal in crystals])) for phase in Phase}
    if wanted is not None:
        others = _read(wanted)
        if len(others) != len(crystals):
            raise InputError(f"expected as many crystals in {wanted} as the {len(crystals)} in {made}, got {len(others)}")
        rows |= asdict(reconstruction(others, crystals, with_fingerprints=fingerprints))
    table = Table("figure", "value")
    for name, value in rows.items():
        if value == value:
            table.add_row(name.replace("_", " "), f"{value:.4g}")
    PlainConsole().print(table)


def _read(path: Path) -> list[Crystal]:
    """Overlapping atoms and vacuum are left to the figures."""
    from campaign.reading.structures import read_structures

    return [entry.crystal for entry in read_structures(path, is_judged=False)]


def labelled_of(source: Path, quantity: str) -> list[LabelledCandidate]:
    """Crystals with a quantity from a campaign's folder, or from a file of structures or a CSV."""
    return opened(source, quantity)[2] if source.is_dir() else labelled_of_file(source, quantity)


def opened(folder: Path, quantity: str, oracle: str | None = None) -> tuple[Campaign, CampaignState, list[LabelledCandidate]]:
    """A campaign, its state and its labels of a quantity by one oracle. Raises InputError where none or several give it."""
    from campaign.api import Campaign
    from campaign.dataset import dataset_before

    campaign = Campaign.open(folder)
    reader = campaign.reader()
    try:
        state = reader.fold()
        giving = sorted({label.oracle for label in state.labels.values() if quantity in label.values})
        if oracle is None and len(giving) != 1:
            raise InputError(
                f"{folder}: {'no oracle gives' if not giving else ', '.join(giving) + ' give'} {quantity}", hint="name one: --oracle"
            )
        dataset = dataset_before(reader, state, state.sequence + 1, oracle or giving[0])
    finally:
        reader.close()
    return campaign, state, [item for item in dataset.labelled if quantity in item.values]


def labelled_of_file(path: Path, quantity: str) -> list[LabelledCandidate]:
    """Raises InputError where the file cannot be read, or a structure has no such value. Energies of whole cells become those per atom."""
    from campaign.reading.tables import TOTALS
    from campaign.schema import SourceConfig
    from campaign.sources import HOUSE_UNITS
    from campaign.sources import read as read_source
    from campaign.types import ENERGY_PER_ATOM, Candidate, LabelledCandidate, Quantity

    source = SourceConfig(path=str(path), columns={quantity: quantity})
    units = HOUSE_UNITS | dict.fromkeys(TOTALS, ENERGY_PER_ATOM.unit)
    quantities = {quantity: Quantity(quantity, units[quantity])} if quantity in units else {}
    entries = read_source(path, source, quantities=quantities)
    return [LabelledCandidate(candidate=Candidate(entry.crystal), values=entry.values) for entry in entries]
