"""Training of the tabular generators, and drawing crystals from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from campaign.errors import InputError
from campaign.types import FloatArray
from generators.cvae.described import Described
from generators.cvae.feasible import Condition
from generators.cvae.free_variables import Batch, batch_of
from generators.cvae.mixture import Mixture
from generators.cvae.model import (
    CONTINUOUS,
    Categories,
    Sizes,
    TabularVAE,
    Variant,
    discrete_of,
    drawn_conditions,
    used_columns,
)
from generators.cvae.sites import condition_of
from generators.cvae.table import MOST_SITES, TabularCrystal, site_of, to_row
from generators.networks.training import Progress


@dataclass(frozen=True)
class TrainingSettings:
    epochs: int = 250
    batch_size: int = 500
    rate: float = 1e-3
    decay: float = 1e-5


@dataclass(frozen=True, eq=False)
class Trained:
    model: TabularVAE
    metrics: dict[str, float]


def train(
    tables: Sequence[TabularCrystal],
    species: tuple[int, ...],
    settings: TrainingSettings,
    *,
    variant: Variant = "oreloop",
    sizes: Sizes | None = None,
    is_conditional: bool = True,
    by_features: bool = False,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """``by_features``: conditions are numbers that all sites have, so that the model can be asked
    for sites that it never learned.

    Raises InputError on fewer tables than mixture components, or on tables with more than eight
    sites.
    """
    sizes = sizes or Sizes()
    if not tables:
        raise InputError("expected crystals to learn from, got none")
    columns = np.array([to_row(table) for table in tables])[:, CONTINUOUS]
    conditions = [condition_of(table) for table in tables]
    rng = np.random.default_rng(seed)
    used = used_columns(conditions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        mixture = Mixture.fit(columns, sizes.components, int(rng.integers(2**31)))
        known = (
            Described.of(conditions, species)
            if by_features
            else Categories.of(discrete_of(conditions, species))
        )
        model = TabularVAE(mixture, known, species, sizes, variant, is_conditional=is_conditional)
        one_hot, residual = mixture.encode(columns, rng)
        encoded = model.encoded(conditions)
        weight = torch.from_numpy(used if variant == "oreloop" else np.ones_like(used)).float()
        optimiser = torch.optim.Adam(
            model.parameters(), lr=settings.rate, weight_decay=settings.decay
        )
        n = len(tables)
        steps = settings.epochs * max(1, -(-n // settings.batch_size))
        loss, step = np.nan, 0
        for _ in range(settings.epochs):
            for rows in np.array_split(rng.permutation(n), max(1, -(-n // settings.batch_size))):
                found = model.loss(one_hot[rows], residual[rows], encoded[rows], weight[rows])
                optimiser.zero_grad()
                found.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                step, loss = step + 1, float(found.detach())
                if progress is not None:
                    progress(Progress(step, steps, loss))
        model.eval()
    return Trained(model, {"loss": loss, "steps": float(steps), "crystals": float(n)})


class Decoder:
    """Free variables as a differentiable function of latent vectors, for fixed conditions: the
    decoder, then the symmetry's own maps.

    ``batch``: the conditions as crystals; their coordinates are replaced. A point off its site is
    taken to the place of the site that is nearest for the first latent vectors; which of the
    equivalent places that is stays as it is, so that the map is smooth.
    """

    def __init__(self, model: TabularVAE, conditions: Sequence[Condition], latent: Tensor) -> None:
        self.model = model.requires_grad_(False)
        with torch.no_grad():
            self.embedding = model.embed(model.encoded(conditions))
            columns, _ = model.columns(latent, self.embedding)
        tables = [
            table_of(condition, row)
            for condition, row in zip(conditions, columns.numpy(), strict=True)
        ]
        self.batch = batch_of(tables, model.species)
        self.maps, self.offsets = _maps(tables, self.batch)

    def __call__(self, latent: Tensor, rows: Tensor | None = None) -> Tensor:
        """(B, f) free variables of (B, latent), or of some rows."""
        which = torch.arange(len(self.batch)) if rows is None else rows
        columns, _ = self.model.columns(latent, self.embedding[which])
        return torch.einsum("bfc,bc->bf", self.maps[which], columns) + self.offsets[which]


def _maps(tables: Sequence[TabularCrystal], batch: Batch) -> tuple[Tensor, Tensor]:
    """(B, f, 30) and (B, f): free variables as a linear function of the continuous columns, where
    the tables' points are now.
    """
    n_free = batch.variables.shape[1]
    maps, offsets = (
        np.zeros((len(tables), n_free, len(CONTINUOUS))),
        np.zeros((len(tables), n_free)),
    )
    for row, table in enumerate(tables):
        n_cell = int(batch.n_cell[row])
        cell = batch.tables[0][batch.families[row], :, :n_cell]
        maps[row, :n_cell, :6] = cell.T / cell.sum(0)[:, None]
        place = n_cell
        for k, (index, point) in enumerate(zip(table.sites, table.points, strict=True)):
            site = site_of(table.space_group, index)
            d = site.degrees_of_freedom
            found = batch.variables[row, place : place + d]
            operation = _nearest(site.inverse[:, :d], site.shifts, np.array(point), found)
            inverse = site.inverse[operation, :d]
            maps[row, place : place + d, 6 + 3 * k : 9 + 3 * k] = inverse
            offsets[row, place : place + d] = found - inverse @ np.array(point)
            place += d
    return torch.from_numpy(maps), torch.from_numpy(offsets)


def _nearest(inverse: FloatArray, shifts: FloatArray, point: FloatArray, found: FloatArray) -> int:
    """The operation whose map takes the point to these free coordinates, but for whole steps."""
    apart = np.einsum("mda,ma->md", inverse, point - shifts) - found
    return int(np.abs(apart - np.round(apart)).sum(1).argmin())


def table_of(condition: Condition, columns: FloatArray) -> TabularCrystal:
    """Of (30,) continuous columns; lengths and angles within what a cell can have."""
    group, sites = condition
    cell = [
        *np.clip(columns[:3], 1.5, 50.0).tolist(),
        *np.clip(columns[3:6], np.pi / 6, 5 * np.pi / 6).tolist(),
    ]
    points = tuple(
        (float(x), float(y), float(z))
        for x, y, z in columns[6:].reshape(MOST_SITES, 3)[: len(sites)]
    )
    return TabularCrystal(
        group,
        tuple(cell),
        tuple(index for index, _ in sites),
        points,
        tuple(number for _, number in sites),
    )


@torch.no_grad()
def sample(
    model: TabularVAE, conditions: Sequence[Condition], rng: np.random.Generator
) -> list[TabularCrystal]:
    """A crystal for each condition, from the prior. Raises InputError on a condition that was not
    learned.
    """
    latent = normal(len(conditions), model, rng)
    columns, _ = model.columns(latent, model.embed(model.encoded(conditions)))
    return [
        table_of(condition, row) for condition, row in zip(conditions, columns.numpy(), strict=True)
    ]


@torch.no_grad()
def sample_all(model: TabularVAE, n: int, rng: np.random.Generator) -> list[TabularCrystal | None]:
    """``n`` draws of the VAE on all columns; None where its space group and sites do not go
    together.
    """
    latent = normal(n, model, rng)
    columns, logits = model.columns(latent, latent[:, :0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        conditions = drawn_conditions(model, logits)
    return [
        None if condition is None else table_of(condition, row)
        for condition, row in zip(conditions, columns.numpy(), strict=True)
    ]


def normal(n: int, model: TabularVAE, rng: np.random.Generator) -> Tensor:
    """(n, latent) from the prior."""
    return torch.from_numpy(rng.normal(size=(n, model.sizes.latent))).float()
