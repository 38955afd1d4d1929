"""The conditional VAE on 30 continuous columns under a space group and sites, and the VAE on all 39
columns that it is compared with.

Encoder: mixture encoding (330 inputs at 10 components) -> 1024 -> 1024 -> mean and log variance
(128). Condition: one-hot of the nine discrete columns, or numbers that all sites have
(``Described``) -> 128. Decoder: (128 + 128) -> 1024 -> 1024 -> 330, a spread learned for each
column. Loss: 2 cross-entropy + 0.1 negative log likelihood of the residuals + Kullback-Leibler
divergence, summed over columns, averaged over crystals (O. G. Ridwan et al., section 3.2).

The paper's variant takes tanh of the residuals in training and not when sampling, and mixes the
components there. oreloop's does neither, and leaves the columns of sites that are not there
out of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from campaign.errors import InputError
from campaign.types import FloatArray
from generators.cvae.described import Described
from generators.cvae.feasible import Condition
from generators.cvae.mixture import Mixture
from generators.cvae.table import COLUMNS, MOST_SITES
from generators.wyckoff import group_of

Variant = Literal["paper", "oreloop"]
DISCRETE = [0, *range(7, len(COLUMNS), 4)]
CONTINUOUS = [column for column in range(len(COLUMNS)) if column not in DISCRETE]


@dataclass(frozen=True)
class Sizes:
    latent: int = 128
    hidden: int = 1024
    embedding: int = 128
    components: int = 10


@dataclass(frozen=True)
class Categories:
    """Values of each of the nine discrete columns that the model knows."""

    values: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, discrete: FloatArray) -> Categories:
        """Of (n, 9) columns."""
        return cls(tuple(tuple(sorted({int(value) for value in column})) for column in discrete.T))

    @property
    def n_inputs(self) -> int:
        return sum(len(values) for values in self.values)

    def encode(self, conditions: Sequence[Condition], species: Sequence[int]) -> Tensor:
        """(n, n_inputs) one-hot. Raises InputError on a value that was not learned."""
        discrete = discrete_of(conditions, species)
        parts = []
        for name, values, column in zip(
            ("space group", *(f"site {k + 1}" for k in range(MOST_SITES))),
            self.values,
            discrete.T,
            strict=True,
        ):
            unknown = set(column.astype(int).tolist()) - set(values)
            if unknown:
                raise InputError(
                    f"{name} {min(unknown)} was not in the data that the model learned from"
                )
            parts.append(
                torch.nn.functional.one_hot(
                    torch.from_numpy(np.searchsorted(values, column.astype(int))), len(values)
                ).float()
            )
        return torch.cat(parts, 1)

    def knows(self, condition: Condition, species: Sequence[int]) -> bool:
        row = discrete_of([condition], species)[0]
        return all(int(value) in values for value, values in zip(row, self.values, strict=True))


def discrete_of(conditions: Sequence[Condition], species: Sequence[int]) -> FloatArray:
    """(n, 9) space group and sites: the position's index plus 100 for each place of its element in
    ``species``, -1 where there is none.
    """
    found = np.full((len(conditions), 1 + MOST_SITES), -1.0)
    for row, (group, sites) in enumerate(conditions):
        found[row, 0] = group
        found[row, 1 : 1 + len(sites)] = [
            index + _ELEMENT * list(species).index(number) for index, number in sites
        ]
    return found


_ELEMENT = 100


class TabularVAE(nn.Module):
    """``is_conditional``: continuous columns under discrete ones; otherwise all columns together.
    species: atomic numbers.
    """

    def __init__(
        self,
        mixture: Mixture,
        conditions: Categories | Described,
        species: tuple[int, ...],
        sizes: Sizes,
        variant: Variant,
        *,
        is_conditional: bool,
    ) -> None:
        super().__init__()
        self.species = species
        self.mixture, self.conditions, self.sizes, self.variant, self.is_conditional = (
            mixture,
            conditions,
            sizes,
            variant,
            is_conditional,
        )
        n_columns = len(mixture.means)
        n_discrete = 0 if is_conditional else conditions.n_inputs
        n_inputs = mixture.n_inputs + n_discrete
        embedding = sizes.embedding if is_conditional else 0
        self.encoder = _layers(n_inputs, sizes.hidden, 2 * sizes.latent)
        self.condition = (
            nn.Sequential(nn.Linear(conditions.n_inputs, embedding), nn.ReLU())
            if is_conditional
            else None
        )
        self.decoder = _layers(sizes.latent + embedding, sizes.hidden, n_inputs)
        self.spread = nn.Parameter(torch.full((n_columns,), 0.1))

    def encoded(self, conditions: Sequence[Condition]) -> Tensor:
        """(n, n_inputs). Raises InputError on one that the model does not know."""
        return self.conditions.encode(conditions, self.species)

    def knows(self, condition: Condition) -> bool:
        """Whether a crystal can be asked for under a condition."""
        return self.conditions.knows(condition, self.species)

    @property
    def categories(self) -> Categories:
        """Of the discrete columns. Raises InputError where conditions are described by numbers."""
        if not isinstance(self.conditions, Categories):
            raise InputError("the model has no discrete columns: its conditions are numbers")
        return self.conditions

    def embed(self, conditions: Tensor) -> Tensor:
        """(n, embedding) of encoded conditions; nothing where the model has none."""
        if self.condition is None:
            return conditions[:, :0]
        found: Tensor = self.condition(conditions.to(self.spread))
        return found

    def heads(self, latent: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, c, K) logits, (n, c) residuals, and logits of the discrete columns."""
        out = self.decoder(torch.cat([latent, embedding], 1))
        c, k = self.mixture.means.shape
        return out[:, : c * k].reshape(-1, c, k), out[:, c * k : c * (k + 1)], out[:, c * (k + 1) :]

    def columns(self, latent: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 30) continuous columns, differentiable, and the logits of the discrete ones."""
        logits, residual, discrete = self.heads(latent, embedding)
        return self.mixture.decode(
            logits.double(), residual.double(), soft=self.variant == "paper"
        ), discrete

    def loss(self, one_hot: Tensor, residual: Tensor, discrete: Tensor, used: Tensor) -> Tensor:
        """Mean over crystals. used: (n, c) columns that count."""
        inputs = [one_hot.flatten(1), residual] + ([] if self.is_conditional else [discrete])
        mean, log_variance = self.encoder(torch.cat(inputs, 1)).chunk(2, 1)
        latent = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        logits, found, other = self.heads(latent, self.embed(discrete))
        found = torch.tanh(found) if self.variant == "paper" else found
        spread = self.spread.clamp(0.01, 1.0)
        entropy = -(torch.log_softmax(logits, 2) * one_hot).sum(2)
        likelihood = (
            0.5 * ((found - residual) / spread) ** 2
            + torch.log(spread)
            + 0.5 * math.log(2 * math.pi)
        )
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
        total = 2.0 * (entropy * used).sum(1) + 0.1 * (likelihood * used).sum(1) + divergence
        if not self.is_conditional:
            place = 0
            for values in self.categories.values:
                part = slice(place, place + len(values))
                total = total - 2.0 * (
                    torch.log_softmax(other[:, part], 1) * discrete[:, part]
                ).sum(1)
                place += len(values)
        mean_loss: Tensor = total.mean()
        return mean_loss


def _layers(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, n_out),
    )


def used_columns(conditions: Sequence[Condition]) -> FloatArray:
    """(n, 30) 1 for the cell's columns and those of sites that are there."""
    found = np.zeros((len(conditions), len(CONTINUOUS)))
    found[:, :6] = 1.0
    for row, (_, sites) in enumerate(conditions):
        found[row, 6 : 6 + 3 * len(sites)] = 1.0
    return found


def drawn_conditions(model: TabularVAE, logits: Tensor) -> list[Condition | None]:
    """Of the discrete logits of a VAE, a draw of each column; None where a position is not of the
    group, or there is no site.
    """
    place, drawn = 0, []
    for values in model.categories.values:
        part = torch.softmax(logits[:, place : place + len(values)].float(), 1)
        drawn.append(np.array(values)[torch.multinomial(part, 1).ravel().numpy()])
        place += len(values)
    found: list[Condition | None] = []
    for row in np.stack(drawn, 1):
        sites = tuple(
            (int(code) % _ELEMENT, model.species[int(code) // _ELEMENT])
            for code in row[1:]
            if code >= 0
        )
        n_positions = len(group_of(int(row[0])).positions)
        found.append(
            (int(row[0]), sites)
            if sites and max(index for index, _ in sites) < n_positions
            else None
        )
    return found
