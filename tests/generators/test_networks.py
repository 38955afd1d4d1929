"""Networks on periodic graphs: neighbours, bases, and what must not change or must turn with a
crystal.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.special import spherical_jn
from scipy.stats import special_ortho_group

from campaign.crystals.lattice import supercell
from campaign.crystals.neighbours import pairs
from campaign.errors import InputError
from campaign.types import Crystal, FloatArray
from generators.networks.bases import bessel_zeros, legendre, spherical_bessel
from generators.networks.dimenet import DimeNetPlusPlus
from generators.networks.gemnet import GemNet
from generators.networks.graph import Batch, batch_of, nearest_neighbours, polynomial_envelope
from generators.pcdvae.model import PRESETS

SIZES = PRESETS["small"]


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def random_crystal(rng: np.random.Generator, n: int, volume: float = 12.0) -> Crystal:
    lattice = np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3))
    lattice *= (volume * n / abs(np.linalg.det(lattice))) ** (1 / 3)
    return Crystal(lattice, rng.random((n, 3)), rng.choice([24, 26, 28], n).astype(np.uint8))


@pytest.mark.parametrize("seed", range(4))
def test_neighbours_are_those_of_a_search_over_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    crystals = [random_crystal(rng, n) for n in (1, 3, 7, 12)]
    cutoff, k = 5.5, 9
    near = nearest_neighbours(batch_of(crystals), cutoff, k)
    atom = 0
    for crystal in crystals:
        first, second, distance, vector = pairs(crystal.lattice, crystal.fractional, cutoff)
        for i in range(len(crystal)):
            rows = np.flatnonzero(first == i)
            rows = rows[np.argsort(distance[rows])]
            limit = distance[rows[k]] if len(rows) > k else cutoff
            kept = rows[distance[rows] < limit * (1 - 1e-6)]
            is_edge = near.envelope[atom].numpy() > 1e-15
            assert is_edge.sum() == len(kept)
            wanted = polynomial_envelope(torch.as_tensor(distance[kept] / limit)).numpy()
            expected = np.column_stack(
                [vector[kept], atom - i + second[kept], distance[kept], wanted]
            )
            lengths = near.distance[atom].numpy()[is_edge]
            vectors = near.direction[atom].numpy()[is_edge] * lengths[:, None]
            found = np.column_stack(
                [
                    vectors,
                    near.source[atom].numpy()[is_edge],
                    lengths,
                    near.envelope[atom].numpy()[is_edge],
                ]
            )
            np.testing.assert_allclose(
                found[np.lexsort(found[:, :3].round(6).T)],
                expected[np.lexsort(expected[:, :3].round(6).T)],
                atol=1e-8,
            )
            atom += 1


def test_opposite_edges_point_back() -> None:
    near = nearest_neighbours(
        batch_of([random_crystal(np.random.default_rng(0), n) for n in (2, 9)]), 6.0, 10
    )
    n, k = near.source.shape
    has = near.reverse_envelope > 0
    assert has.any()
    back = near.direction.flatten(0, 1)[near.reverse]
    np.testing.assert_allclose(back[has].numpy(), -near.direction[has].numpy(), atol=1e-9)
    origin = torch.arange(n)[:, None].expand(n, k)
    assert (near.source.flatten()[near.reverse][has] == origin[has]).all()


def test_a_batch_needs_a_crystal() -> None:
    with pytest.raises(InputError, match="at least one crystal"):
        batch_of([])


def test_bases_are_the_textbook_functions() -> None:
    zeros = bessel_zeros(5, 4)
    for order in range(5):
        np.testing.assert_allclose(spherical_jn(order, zeros[order]), 0, atol=1e-10)
    distance = torch.linspace(0.6, 6.9, 50)
    found = spherical_bessel(distance, 7.0, 5, 4).numpy()
    for order in range(5):
        shape = spherical_jn(order, distance.numpy()[:, None] / 7 * zeros[order])
        ratio = found[:, order] / shape
        np.testing.assert_allclose(ratio, np.broadcast_to(ratio[0], ratio.shape), rtol=1e-6)
    radius = torch.linspace(0.21 / float(zeros[2, 0]), 1, 20001)
    values = spherical_bessel(radius, 1.0, 5, 4)[:, 2]
    norm = torch.trapezoid(values**2 * radius[:, None] ** 2, radius, dim=0)
    np.testing.assert_allclose(norm.numpy(), 1, atol=1e-3)
    grid = torch.linspace(-1, 1, 20001)
    harmonics = legendre(grid, 4)
    overlap = 2 * np.pi * torch.trapezoid(harmonics[:, None] * harmonics[None], grid, dim=-1)
    np.testing.assert_allclose(overlap.numpy(), np.eye(4), atol=1e-6)


def turned(crystal: Crystal, rotation: FloatArray) -> Crystal:
    return Crystal(crystal.lattice @ rotation.T, crystal.fractional, crystal.numbers)


def other_views(
    crystal: Crystal, rng: np.random.Generator
) -> dict[str, tuple[Crystal, FloatArray, np.ndarray]]:  # type: ignore[type-arg]
    """Each with the rotation and the order of atoms that lead to it."""
    same, order = np.eye(3), np.arange(len(crystal))
    rotation = special_ortho_group.rvs(3, random_state=3)
    shuffled = rng.permutation(len(crystal))
    images = crystal.fractional + rng.integers(-2, 3, crystal.fractional.shape)
    cell = np.array([[1, 1, 0], [0, 1, 0], [0, -1, 1]])
    return {
        "rotation": (turned(crystal, rotation), rotation, order),
        "translation": (
            Crystal(crystal.lattice, crystal.fractional + rng.random(3), crystal.numbers),
            same,
            order,
        ),
        "permutation": (
            Crystal(crystal.lattice, crystal.fractional[shuffled], crystal.numbers[shuffled]),
            same,
            shuffled,
        ),
        "images": (Crystal(crystal.lattice, images, crystal.numbers), same, order),
        "other cell": (
            Crystal(
                cell @ crystal.lattice, crystal.fractional @ np.linalg.inv(cell), crystal.numbers
            ),
            same,
            order,
        ),
    }


VIEWS = ("rotation", "translation", "permutation", "images", "other cell")


@pytest.mark.parametrize("view", VIEWS)
def test_the_encoder_is_invariant(view: str) -> None:
    rng = np.random.default_rng(1)
    crystal = random_crystal(rng, 6)
    encoder = DimeNetPlusPlus(8, SIZES.encoder)
    seen, _, _ = other_views(crystal, rng)[view]
    np.testing.assert_allclose(
        encoder(batch_of([seen])).detach().numpy(),
        encoder(batch_of([crystal])).detach().numpy(),
        atol=1e-8,
    )


@pytest.mark.parametrize("view", VIEWS)
def test_the_decoder_turns_with_the_crystal(view: str) -> None:
    rng = np.random.default_rng(2)
    crystal = random_crystal(rng, 6)
    decoder, latent = GemNet(100, 4, SIZES.decoder), torch.randn(1, 4)
    seen, rotation, order = other_views(crystal, rng)[view]

    def run(one: Crystal) -> tuple[FloatArray, FloatArray, FloatArray]:
        batch = batch_of([one])
        vectors, features, scalar = decoder(batch, batch.numbers, latent, with_scalar=True)
        assert scalar is not None
        return vectors.detach().numpy(), features.detach().numpy(), scalar.detach().numpy()

    (vectors, features, scalar), (seen_vectors, seen_features, seen_scalar) = (
        run(crystal),
        run(seen),
    )
    assert np.abs(vectors).max() > 1e-3
    np.testing.assert_allclose(seen_vectors, vectors[order] @ rotation.T, atol=1e-8)
    np.testing.assert_allclose(seen_features, features[order], atol=1e-8)
    np.testing.assert_allclose(seen_scalar, scalar[order], atol=1e-8)


def test_crystals_of_a_batch_do_not_touch() -> None:
    rng = np.random.default_rng(3)
    crystals = [random_crystal(rng, n) for n in (4, 9, 2)]
    encoder, decoder, latent = (
        DimeNetPlusPlus(8, SIZES.encoder),
        GemNet(100, 4, SIZES.decoder),
        torch.randn(3, 4),
    )
    together, alone = batch_of(crystals), [batch_of([crystal]) for crystal in crystals]
    np.testing.assert_allclose(
        encoder(together).detach().numpy(),
        torch.cat([encoder(one) for one in alone]).detach().numpy(),
        atol=1e-9,
    )
    vectors = torch.cat(
        [decoder(one, one.numbers, latent[i : i + 1])[0] for i, one in enumerate(alone)]
    )
    np.testing.assert_allclose(
        decoder(together, together.numbers, latent)[0].detach().numpy(),
        vectors.detach().numpy(),
        atol=1e-9,
    )


def test_nothing_jumps_where_neighbours_change_rank() -> None:
    """An atom that crosses the last of the k neighbours' distance moves the outputs by no more than
    it moves itself.
    """
    ideal = supercell("fcc", (2, 2, 2), ["Ni"] * 16)
    decoder, encoder, latent = (
        GemNet(100, 4, SIZES.decoder),
        DimeNetPlusPlus(8, SIZES.encoder),
        torch.randn(1, 4),
    )

    def outputs(step: float) -> FloatArray:
        fractional = ideal.fractional.copy()
        fractional[0] += step * np.array([0.31, 0.17, 0.11])
        batch: Batch = batch_of([Crystal(ideal.lattice, fractional, ideal.numbers)])
        return np.concatenate(
            [
                decoder(batch, batch.numbers, latent)[0].detach().numpy().ravel(),
                encoder(batch).detach().numpy().ravel(),
            ]
        )

    for step in (1e-4, 1e-6):
        assert np.abs(outputs(step) - outputs(-step)).max() < 500 * step
