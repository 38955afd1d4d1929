"""Nets: published coordination sequences and vertex symbols, and keys that are the same in every
cell of a crystal.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ase.build import graphene
from pymatgen.core import Lattice, Structure

from campaign.crystals.topology import (
    coordination_sequences,
    dimensions,
    net_of,
    topology_key,
    vertex_symbols,
)
from campaign.types import Crystal

BONDS = {(6, 6): 1.872}


def crystal(group: int, lattice: Lattice, points: list[list[float]]) -> Crystal:
    return Crystal.from_structure(
        Structure.from_spacegroup(group, lattice, ["C"] * len(points), points)
    )


GRAPHITE = crystal(194, Lattice.hexagonal(2.46, 6.70), [[0, 0, 0.25], [1 / 3, 2 / 3, 0.25]])
DIAMOND = crystal(227, Lattice.cubic(3.567), [[0, 0, 0]])
LONSDALEITE = crystal(194, Lattice.hexagonal(2.52, 4.12), [[1 / 3, 2 / 3, 0.0625]])
SRS = crystal(214, Lattice.cubic(1.42 * 2 * np.sqrt(2)), [[0.125, 0.125, 0.125]])
"""The three-coordinated net with five rings of ten in each angle, with bonds of 1.42 angstrom."""


@pytest.mark.parametrize(
    ("net", "sequence", "symbol", "dimension"),
    [
        (GRAPHITE, [3, 6, 9, 12, 15, 18], ((6, 1),) * 3, 2),
        (DIAMOND, [4, 12, 24, 42, 64, 92, 124, 162, 204, 252], ((6, 2),) * 6, 3),
        (LONSDALEITE, [4, 12, 25, 44, 67, 96, 130, 170, 214, 264], ((6, 2),) * 6, 3),
        (SRS, [3, 6, 12, 24, 35, 48, 69, 86, 108, 138], ((10, 5),) * 3, 3),
    ],
    ids=["graphite", "diamond", "lonsdaleite", "srs"],
)
def test_published_sequences_and_symbols(
    net: Crystal, sequence: list[int], symbol: tuple[tuple[int, int], ...], dimension: int
) -> None:
    """hcb, dia, lon and srs of the Reticular Chemistry Structure Resource (M. O'Keeffe et al., Acc.
    Chem. Res. 41 (2008) 1782).
    """
    bonds, _ = net_of(net, BONDS)
    roots = range(len(net))
    assert coordination_sequences(len(net), bonds, roots, len(sequence)).tolist() == [
        sequence
    ] * len(net)
    assert vertex_symbols(len(net), bonds, roots) == [symbol] * len(net)
    assert set(dimensions(len(net), bonds)) == {dimension}


def test_the_key_is_of_the_net_and_not_of_the_cell() -> None:
    rng = np.random.default_rng(0)
    keys = set()
    for net in (GRAPHITE, DIAMOND, LONSDALEITE, SRS):
        key = topology_key(net, BONDS)
        keys.add(key)
        for scaling in (
            [2, 1, 1],
            [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
            [[1, 1, 0], [-1, 1, 0], [0, 0, 2]],
        ):
            other = Crystal.from_structure(
                net.structure * scaling
                if np.ndim(scaling) == 1
                else net.structure.make_supercell(scaling, in_place=False)
            )
            assert topology_key(other, BONDS) == key
        turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        strain = np.eye(3) + 0.01 * rng.normal(size=(3, 3))
        order = rng.permutation(len(net))
        moved = Crystal(
            net.lattice @ strain @ turned,
            (net.fractional + 0.31)[order] - rng.integers(0, 3, (len(net), 3)),
            net.numbers,
        )
        assert topology_key(moved, BONDS) == key
    assert len(keys) == 4


def test_dimensions_of_molecules_chains_layers_and_frameworks() -> None:
    """Larsen's classes, by atoms whose bonds reach across none, one, two or three faces of a cell
    of 1.5 by 6 angstrom.
    """
    for n in range(4):
        edges = [1.5 if axis < n else 6.0 for axis in range(3)]
        one = Crystal(np.diag(edges), np.zeros((1, 3)), np.array([6]))
        bonds, _ = net_of(one, BONDS)
        assert dimensions(1, bonds) == (n,)
    atoms = graphene(vacuum=5.0)
    layer = Crystal(
        np.array([*atoms.cell[:2], [0, 0, 10.0]]), atoms.get_scaled_positions(), atoms.numbers
    )
    bonds, _ = net_of(layer, BONDS)
    assert dimensions(2, bonds) == (2,)


def test_kinds_of_atoms_make_other_nets() -> None:
    numbers = np.array([5, 7] * 2)
    nitride = Crystal(GRAPHITE.lattice, GRAPHITE.fractional, numbers)
    assert topology_key(nitride, {(5, 7): 1.872}) != topology_key(GRAPHITE, BONDS)
    bonds, _ = net_of(nitride, {(5, 5): 1.872})
    kinds = set(nitride.numbers[bonds[:, :2]].ravel().tolist())
    assert kinds <= {5}, "only bonds that are named count"


def test_orderings_of_an_alloy_are_different_nets() -> None:
    """Two orderings of 1:1 on one fcc lattice, L1_0 and L1_1, whose atoms all have twelve
    neighbours; L1_0 in another cell is the same.
    """
    bonds = dict.fromkeys([(26, 26), (26, 28), (28, 28)], 3.0)
    layered = Crystal(
        np.diag([2.54, 2.54, 3.59]), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([26, 28])
    )
    primitive = 1.795 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0.0]])
    along = Crystal(
        np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]]) @ primitive,
        np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
        np.array([26, 28]),
    )
    keys = [
        topology_key(crystal, bonds)
        for crystal in (layered, along, Crystal.from_structure(layered.structure * [2, 1, 2]))
    ]
    assert set(dimensions(2, net_of(along, bonds)[0])) == {3}
    assert keys[0] == keys[2] != keys[1]


def test_rings_are_not_mere_cycles() -> None:
    """In the cube-like net of pcu an angle of opposite bonds has no ring: every cycle through it
    has a shorter way across.
    """
    pcu = Crystal(1.5 * np.eye(3), np.zeros((1, 3)), np.array([6]))
    bonds, _ = net_of(pcu, BONDS)
    assert vertex_symbols(1, bonds, [0]) == [((0, 0),) * 3 + ((4, 1),) * 12]
    assert coordination_sequences(1, bonds, [0], 4).tolist() == [[6, 18, 38, 66]]


def test_loops_run_without_their_compiler() -> None:
    """An oracle's own interpreter need not have numba."""
    program = """
import sys
sys.modules["numba"] = None
import subprocess
import sys

import numpy as np
from campaign.crystals.extent import not_bulk
from campaign.types import Crystal
numbers = np.array([28, 28], dtype=np.uint8)
print(not_bulk(Crystal(np.diag([2.5, 2.5, 20.0]), np.array([[0, 0, 0], [0.5, 0.5, 0.1]]), numbers)))
print(not_bulk(Crystal(np.eye(3) * 2.8, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), numbers)))
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout == "a slab or layers in vacuum\n\n"
