"""Fingerprints of crystals by coordination: how much each site has of every coordination number,
and of which shape its neighbours are.

N. E. R. Zimmermann, A. Jain, RSC Adv. 10 (2020) 6063; bonds and order parameters by pymatgen. For
each coordination number up to 24 its weight, then that weight times each order parameter of the
number. About 5 ms per atom.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from campaign.types import Crystal, FloatArray

_STEINHARDT = ("q2", "q4", "q6")
SHAPES: dict[int, tuple[str, ...]] = {
    1: ("sgl_bd",),
    2: ("L-shaped", "water-like", "bent 120 degrees", "bent 150 degrees", "linear"),
    3: ("trigonal planar", "trigonal non-coplanar", "T-shaped"),
    4: (
        "square co-planar",
        "tetrahedral",
        "rectangular see-saw-like",
        "see-saw-like",
        "trigonal pyramidal",
    ),
    5: ("pentagonal planar", "square pyramidal", "trigonal bipyramidal"),
    6: ("hexagonal planar", "octahedral", "pentagonal pyramidal"),
    7: ("hexagonal pyramidal", "pentagonal bipyramidal"),
    8: ("body-centered cubic", "hexagonal bipyramidal"),
    9: _STEINHARDT,
    10: _STEINHARDT,
    11: _STEINHARDT,
    12: ("cuboctahedral", *_STEINHARDT),
}
LARGEST = 24
SIZE = LARGEST + sum(len(shapes) for shapes in SHAPES.values())


def fingerprint(crystal: Crystal) -> FloatArray:
    """(61,) averaged over sites; not a number where bonds cannot be told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.asarray(
                np.mean([_site(crystal.structure, site) for site in range(len(crystal))], axis=0),
                dtype=float,
            )
        except (ValueError, RuntimeError, IndexError):
            return np.full(SIZE, np.nan)


def _site(structure: Any, site: int) -> list[float]:
    bonds = _bonds().get_nn_data(structure, site)
    found = []
    for number in range(1, LARGEST + 1):
        weight = float(bonds.cn_weights.get(number, 0.0))
        found.append(weight)
        for parameter in _parameters().get(number, ()):
            value = None
            if weight > 0:
                sites = [
                    structure[site],
                    *(neighbour["site"] for neighbour in bonds.cn_nninfo[number]),
                ]
                value = parameter.get_order_parameters(
                    sites, 0, indices_neighs=list(range(1, len(sites)))
                )[0]
            found.append(weight * float(value or 0.0))
    return found


@lru_cache(maxsize=1)
def _bonds() -> Any:
    from pymatgen.analysis.local_env import CrystalNN

    return CrystalNN()


@lru_cache(maxsize=1)
def _parameters() -> dict[int, list[Any]]:
    from pymatgen.analysis.local_env import CN_OPT_PARAMS, LocalStructOrderParams

    def made(number: int, shape: str) -> Any:
        kind, *settings = CN_OPT_PARAMS.get(number, {}).get(shape, [shape])
        return LocalStructOrderParams([kind], parameters=[settings[0] if settings else None])

    return {number: [made(number, shape) for shape in shapes] for number, shapes in SHAPES.items()}
