"""Power spectra of environments, their losses and slopes, against published and numerical ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from carbon_cases import CARBON, GRAPHITE, nothing, random_batch

from campaign.crystals.so3 import PowerSpectrum, solid_pieces
from campaign.types import Crystal
from generators.cvae.data import (
    descriptions,
    subgroups,
)
from generators.cvae.environment import Environment, limits_of, prototype, site_spectra
from generators.cvae.feasible import SiteLimits
from generators.cvae.free_variables import batch_of
from generators.cvae.loss import loss_and_slope
from generators.cvae.refine import with_volume
from generators.cvae.sites import (
    random_table,
)
from generators.cvae.table import decode, encode, from_row, to_row
from generators.cvae.tensors import TensorSpectrum
from generators.wyckoff import group_of

PUBLISHED = {
    2.0: [
        9.765678646,
        0,
        1.199668677,
        0.947121561,
        0.048670187,
        -1.281692492,
        0,
        -0.359840958,
        -0.349054443,
        -0.020649122,
        0.168215206,
    ]
    + [0, 0.107934397, 0.128641358, 0.008760728],
    2.1: [
        16.699144,
        0,
        2.177401,
        1.796298,
        0.096962,
        -1.971523,
        0,
        -0.619228,
        -0.635147,
        -0.03978,
        0.232761,
        0,
        0.176101,
        0.224579,
        0.01632,
    ],
    2.2: [
        25.936542,
        0,
        3.565811,
        3.060105,
        0.172667,
        -2.668766,
        0,
        -0.953912,
        -1.032705,
        -0.068239,
        0.274605,
    ]
    + [0, 0.255187, 0.34851, 0.026968],
}


@pytest.mark.parametrize("cutoff", PUBLISHED)
def test_graphite_has_the_published_spectrum(cutoff: float) -> None:
    """The values of PyXtal's code for n_max 2, l_max 4, alpha 1.5, by pairs (1,1), (2,1), (2,2);
    all four atoms are alike.
    """
    found = site_spectra(
        batch_of([encode(prototype("graphite"))], (CARBON,)),
        nothing(PowerSpectrum(cutoff, 2, 4, 1.5)),
    )
    assert len(found) == 2
    assert np.abs(found - PUBLISHED[cutoff]).max() < 2e-6


def test_diamond_has_the_published_spectrum_and_distance_from_graphite() -> None:
    settings = PowerSpectrum(2.0, 2, 4, 1.5)
    found = site_spectra(batch_of([encode(prototype("diamond"))], (CARBON,)), nothing(settings))[0]
    wanted = [
        4.382702,
        0,
        0,
        0.503424,
        0.061328,
        -0.856225,
        0,
        0,
        -0.197057,
        -0.027065,
        0.167276,
        0,
        0,
        0.077135,
        0.011945,
    ]
    assert np.abs(found - wanted).max() < 2e-6
    assert ((found - PUBLISHED[2.0]) ** 2).sum() == pytest.approx(30.9606, abs=1e-3)


def test_tabulated_pieces_are_the_radial_functions() -> None:
    from campaign.crystals.so3 import radial_functions

    settings = PowerSpectrum(3.0, 3, 3, 1.0)
    pieces, r = solid_pieces(settings), np.linspace(0.3, 2.9, 40)
    place = r**2 * len(pieces) / settings.cutoff**2
    t = (place - place.astype(int))[:, None, None]
    p = pieces[place.astype(int)]
    made = p[..., 0] + t * (p[..., 1] + t * (p[..., 2] + t * p[..., 3]))
    orders = np.arange(4)
    wanted = (
        radial_functions(settings)(r)
        * np.sqrt(2 * np.sqrt(2) * np.pi / np.sqrt(2 * orders + 1))
        / r[:, None, None] ** orders
    )
    assert np.abs(made - wanted).max() < 1e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("kind", ["target", "long", "shells"])
def test_slopes_are_those_of_the_loss(kind: str) -> None:
    """Central differences in double precision, to lattice and coordinates, for all crystal
    families.
    """
    from generators.cvae import kernel

    batch = with_volume(random_batch(30, 1), (6.0, 12.0))
    assert len(set(batch.families.tolist())) >= 4
    objective = {
        "target": GRAPHITE.target.objective,
        "long": GRAPHITE.stage(4.0, 0.7).with_shells(GRAPHITE.shells(6, 0.85), 10.0),
        "shells": GRAPHITE.shells(9).objective,
    }[kind]

    def loss(variables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = kernel.refine_all(
            *batch.with_variables(variables).arguments, objective, limits_of(batch), 1, False
        )
        return found[0], found[1]

    value, slope = loss(batch.variables)
    assert np.isfinite(value).all()
    step = 1e-6
    for column in range(batch.variables.shape[1]):
        up, down = batch.variables.copy(), batch.variables.copy()
        up[:, column] += step
        down[:, column] -= step
        numerical = np.where(column < batch.counts, (loss(up)[0] - loss(down)[0]) / (2 * step), 0.0)
        assert np.abs(numerical - slope[:, column]).max() < 1e-6 * max(1.0, np.abs(slope).max()), (
            column
        )


def test_torch_agrees_with_the_compiled_loops() -> None:
    """Loss and gradients, for crystals of different size at once, of one element and of two."""
    two = Environment((prototype("boron_nitride"),))
    limits = SiteLimits((5, 7), (3, 3), (1, 1), atoms=(4, 60), sites=(2, 4))
    for environment, batch in ((GRAPHITE, random_batch(20, 2)), (two, random_batch(10, 3, limits))):
        batch = with_volume(batch, (6.0, 12.0))
        for stage in (environment.target, environment.stage(3.5, 0.8)):
            wanted, slope = loss_and_slope(batch, stage)
            variables = torch.from_numpy(batch.variables.copy()).requires_grad_(True)
            loss = TensorSpectrum(batch, stage).loss(variables)
            loss.sum().backward()
            assert variables.grad is not None
            assert np.allclose(loss.detach().numpy(), wanted, rtol=1e-9)
            assert np.allclose(
                variables.grad.numpy(), slope, rtol=1e-7, atol=1e-7 * np.abs(slope).max()
            )


def test_the_loss_does_not_depend_on_the_description() -> None:
    """Other equivalent points, a subgroup, and another choice of cell have the same S; so has a
    rotated crystal.
    """
    rng = np.random.default_rng(4)
    table = encode(prototype("lonsdaleite"))
    value, _ = loss_and_slope(batch_of([table], (CARBON,)), GRAPHITE.target)
    others = descriptions(table, 8, rng)
    lower = subgroups(table, GRAPHITE, 6, rng)
    turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    crystal = decode(table)
    others.append(
        encode(Crystal(crystal.lattice @ turned, crystal.fractional + 0.217, crystal.numbers))
    )
    assert np.allclose(
        loss_and_slope(batch_of(others, (CARBON,)), GRAPHITE.target)[0], value, rtol=1e-7
    )
    assert lower, "PyXtal finds a subgroup"
    assert all(other.space_group != table.space_group for other in lower)
    assert np.allclose(
        loss_and_slope(batch_of(lower, (CARBON,)), GRAPHITE.target)[0], value, rtol=1e-3
    ), "but for PyXtal's steps of 5e-4"


def test_every_space_group_comes_back() -> None:
    """A random crystal of each of the 230 groups: atoms, then encoded and decoded to the same
    atoms, and by the 39 columns.
    """
    rng = np.random.default_rng(5)
    for group in range(1, 231):
        positions = group_of(group).positions
        sites = (
            ((0, CARBON),) if len(positions) == 1 else ((0, CARBON), (len(positions) // 2, CARBON))
        )
        table = random_table((group, sites), (20.0, 20.0 + 1e-9), rng)
        crystal = decode(table)
        assert len(crystal) == table.n_atoms
        again = encode(crystal, precision=1e-4)
        assert again.space_group >= group, "no symmetry is lost"
        if again.space_group == group:
            assert again.n_atoms == table.n_atoms
        twice = decode(from_row(to_row(again), CARBON))
        before, after = (
            np.sort(np.linalg.norm(each.structure.distance_matrix, axis=1))
            for each in (decode(again), twice)
        )
        assert np.allclose(before, after, atol=1e-6), group
        assert twice.volume / len(twice) == pytest.approx(crystal.volume / len(crystal), rel=1e-5)
        assert np.allclose(np.sort(_shortest(crystal)), np.sort(_shortest(twice)), atol=1e-3), group


def _shortest(crystal: Crystal) -> np.ndarray:
    distances = crystal.structure.distance_matrix + 100 * np.eye(len(crystal))
    return np.quantile(distances.min(1), [0.0, 0.5, 1.0])
