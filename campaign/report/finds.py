"""What was found, as tables for people: the command ``oreloop found``, a CSV of the hits, and the
report's page of stability.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from campaign.errors import InputError
from campaign.files import write_whole
from campaign.report.found import Found, Tally, found, known_crystals, tallies
from campaign.views.view import OpenView

if TYPE_CHECKING:
    import pandas as pd

    from campaign.api import Campaign

log = logging.getLogger(__name__)

_SHOWN, _MOST = 20, 200
_NOT_COMPARED = "Not compared with a table of the known (known: in the config)."


def found_of(
    view: OpenView, *, tolerance: float, oracle: str | None = None, known: Path | None = None
) -> list[Found]:
    """``known``: in place of the config's table. Raises InputError where it cannot be read, or the
    labels make no hull.
    """
    config = view.config.known
    path = known or (view.loaded.folder / config.path if config is not None else None)
    column = config.structure_column if config is not None else "cif"
    crystals = (
        known_crystals(path, view.config.space.elements, structure_column=column)
        if path is not None
        else []
    )
    return found(
        view.state, view.reader, oracle or view.oracle, tolerance=tolerance, known=crystals
    )


def hits(rows: list[Found]) -> pd.DataFrame:
    """One row for each stable and unique crystal, the lowest above the hull first; energies in
    eV/atom.
    """
    import pandas as pd

    stable = sorted(
        (item for item in rows if item.is_stable and item.is_unique),
        key=lambda item: (item.above_hull, item.formation_energy),
    )
    return pd.DataFrame(
        [
            {
                "candidate": item.label.candidate,
                "formula": item.crystal.structure.composition.reduced_formula,
                "atoms": len(item.crystal),
                "space group": item.space_group,
                "prototype": item.prototype,
                "above hull (eV/atom)": item.above_hull,
                "formation energy (eV/atom)": item.formation_energy,
                "known as": item.known_as,
                "generator": item.generator,
                "round": item.label.round,
            }
            for item in stable
        ]
    )


@dataclass(frozen=True)
class Section:
    """The report's part on what is stable: terms in words, the hits, tallies by generator, and what
    is said of those in no table.
    """

    terms: str
    rows: list[dict[str, Any]]
    tallies: dict[str, Tally]
    otherwise: str


def section(view: OpenView) -> Section | None:
    """None where the labels make no hull yet, or the table of the known is not there."""
    tolerance, known = view.config.acquisition.tolerance, view.config.known
    try:
        rows = found_of(view, tolerance=tolerance)
    except InputError as error:
        log.warning("the report lacks what is stable: %s", error.message)
        return None
    beside = f"Novel: no copy of a crystal in {known.path}." if known is not None else _NOT_COMPARED
    terms = (
        f"Stable: at most {tolerance:g} eV/atom above the hull of this campaign's own labels "
        f"of {view.oracle}, as they stand. "
        f"Unique: no copy of a crystal labelled before. {beside}"
    )
    frame = hits(rows)
    counted = {**tallies(rows, lambda item: item.generator), "all": _all(rows)}
    return Section(
        terms, frame.head(_MOST).to_dict("records"), counted, "new" if known is not None else ""
    )


def tables(
    campaign: Campaign,
    *,
    known: Path | None,
    tolerance: float,
    oracle: str | None,
    target: Path | None,
) -> list[Table]:
    """Tallies by generator and the best hits; all hits go to a CSV."""
    with campaign.view() as view:
        rows = found_of(view, oracle=oracle, known=known, tolerance=tolerance)
    has_table = known is not None or view.config.known is not None
    frame = hits(rows)
    if target is not None:
        write_whole(target, frame.to_csv(index=False).encode())
    title = (
        f"{oracle or view.oracle}: stable at most {tolerance:g} eV/atom above "
        "the hull of its own labels"
    )
    return [_tally_table(rows, title, has_table), _hit_table(frame, has_table)]


def _tally_table(rows: list[Found], title: str, has_table: bool) -> Table:
    last = "novel" if has_table else "novel (no table of the known)"
    table = Table(
        "generator",
        "labelled",
        "stable",
        "and unique",
        f"and {last}",
        "of them compositions",
        "share",
        title=title,
    )
    for name, tally in {**tallies(rows, lambda item: item.generator), "all": _all(rows)}.items():
        counts = (tally.labelled, tally.stable, tally.unique, tally.novel, len(tally.compositions))
        table.add_row(name, *map(str, counts), f"{tally.share:.3f}")
    return table


def _all(rows: list[Found]) -> Tally:
    return tallies(rows, lambda item: "").get("", Tally())


def _hit_table(frame: pd.DataFrame, has_table: bool) -> Table:
    table = Table(
        "formula",
        "space group",
        "above hull (eV/atom)",
        "formation (eV/atom)",
        "known",
        "candidate",
        title=f"{len(frame)} stable and unique",
    )
    for row in frame.head(_SHOWN).to_dict("records"):
        known = (f"as {row['known as']}" if row["known as"] else "new") if has_table else ""
        energies = f"{row['above hull (eV/atom)']:.4f}", f"{row['formation energy (eV/atom)']:.4f}"
        table.add_row(row["formula"], row["space group"], *energies, known, row["candidate"])
    return table
