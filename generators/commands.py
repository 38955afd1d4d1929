"""The command ``oreloop evaluate crystals``, the metrics of any generator's crystals."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from campaign.errors import InputError
from campaign.views.terminal import PlainConsole

if TYPE_CHECKING:
    from campaign.types import Crystal


def evaluate(
    made: Annotated[
        Path,
        typer.Argument(
            help="Crystals: CIF, POSCAR, extxyz, an ASE database, or a folder of these."
        ),
    ],
    wanted: Annotated[
        Path | None, typer.Option(help="As many crystals that they should be, in the same order.")
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(help="Crystals that are known: what matches none of them is novel."),
    ] = None,
    fingerprints: Annotated[
        bool,
        typer.Option(help="With --wanted: CrystalNN fingerprint distances, about 10 ms per atom."),
    ] = True,
) -> None:
    """Validity, uniqueness, novelty and phases of crystals, and how near they come to wanted
    ones.
    """
    import numpy as np

    from campaign.crystals.phases import Phase
    from generators.metrics import generation, phase_share, reconstruction

    crystals = _read(made)
    rows = dict(generation(crystals, _read(known) if known is not None else ()))
    if known is None:
        rows.pop("novel")
    rows |= {
        f"{phase.name.lower()} sites": float(
            np.mean([phase_share(crystal, phase.name) for crystal in crystals])
        )
        for phase in Phase
    }
    if wanted is not None:
        others = _read(wanted)
        if len(others) != len(crystals):
            raise InputError(
                f"expected as many crystals in {wanted} as the {len(crystals)} in {made}, got "
                f"{len(others)}"
            )
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
