"""Pictures of finished campaigns for the gallery: ``python docs/gallery.py NAME=FOLDER ...``. Draws
the crystals that lead each campaign, side by side, as ``docs/screens/NAME.png``.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from campaign.api import Campaign
from campaign.decide import ranking
from campaign.report import pictures
from campaign.types import Crystal

SCREENS = Path(__file__).resolve().parent / "screens"
_COLUMNS, _ROWS, _DOTS_PER_INCH = 4, 2, 60


def leading(campaign: Campaign) -> list[tuple[str, Crystal]]:
    """The best crystals with a line on each; of a composition the best alone, elements left out."""
    found: dict[str, tuple[str, Crystal]] = {}
    with campaign.view() as view:
        for item in ranking.ranked(view.state, view.wanted):
            crystal = view.reader.crystal(item.label.crystal or item.label.candidate)
            composition = crystal.structure.composition
            if len(composition) > 1 and composition.reduced_formula not in found:
                value = item.label.values[view.objective.quantity]
                _, number = crystal.structure.get_space_group_info(0.01)
                line = (
                    f"{composition.reduced_formula}, space group {number}\n{value:.4g} {view.unit}"
                )
                found[composition.reduced_formula] = line, crystal
            if len(found) == _COLUMNS * _ROWS:
                break
    return list(found.values())


def sheet(crystals: list[tuple[str, Crystal]]) -> Image.Image:
    """Pictures in rows of four."""
    images = []
    for line, crystal in crystals:
        page = io.BytesIO()
        pictures.crystal(crystal, line).savefig(page, dpi=_DOTS_PER_INCH)
        images.append(np.array(Image.open(page).convert("RGB")))
    blank = np.full_like(images[0], 255)
    images += [blank] * (-len(images) % _COLUMNS)
    rows = [np.hstack(images[i : i + _COLUMNS]) for i in range(0, len(images), _COLUMNS)]
    return Image.fromarray(np.vstack(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("campaigns", nargs="+", metavar="NAME=FOLDER")
    for given in parser.parse_args().campaigns:
        name, _, folder = given.partition("=")
        path = SCREENS / f"{name}.png"
        sheet(leading(Campaign.open(folder))).save(path, optimize=True)
        sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
