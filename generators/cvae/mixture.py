"""Columns of numbers as mixtures of Gaussians: a component each, and where in it (the encoding of
tabular generators).

Each column x is fitted by K Gaussians; a value becomes the one-hot of a component k, drawn by its
responsibility, and the residual (x - mu_k) / sigma_k: K + 1 inputs a column (O. G. Ridwan et al.,
section 3.2; L. Xu et al., NeurIPS 2019, for the encoding).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from campaign.errors import InputError
from campaign.types import FloatArray

_LEAST_SPREAD = 1e-3
_FITTED = 20_000


@dataclass(frozen=True, eq=False)
class Mixture:
    """means, spreads, weights: (columns, K)."""

    means: FloatArray
    spreads: FloatArray
    weights: FloatArray

    @property
    def n_inputs(self) -> int:
        columns, components = self.means.shape
        return int(columns * (components + 1))

    @classmethod
    def fit(cls, columns: FloatArray, components: int, seed: int) -> Mixture:
        """``columns`` (n, c). Raises InputError on fewer rows than components."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        if len(columns) < components:
            raise InputError(
                f"expected at least {components} crystals, one for each component, got "
                f"{len(columns)}"
            )
        rng = np.random.default_rng(seed)
        rows = (
            columns
            if len(columns) <= _FITTED
            else columns[rng.choice(len(columns), _FITTED, replace=False)]
        )
        found = []
        for column in rows.T:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                fitted = GaussianMixture(
                    components, random_state=seed, reg_covar=_LEAST_SPREAD**2
                ).fit(column[:, None])
            found.append(
                (fitted.means_.ravel(), np.sqrt(fitted.covariances_.ravel()), fitted.weights_)
            )
        means, spreads, weights = (np.array(values) for values in zip(*found, strict=True))
        return cls(means, np.maximum(spreads, _LEAST_SPREAD), weights)

    def encode(self, columns: FloatArray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(n, c, K) one-hot components, drawn once, and (n, c) residuals."""
        apart = (columns[:, :, None] - self.means) / self.spreads
        logarithm = np.log(self.weights) - np.log(self.spreads) - 0.5 * apart**2
        chosen = (logarithm + rng.gumbel(size=logarithm.shape)).argmax(2)
        residual = np.take_along_axis(apart, chosen[:, :, None], 2)[:, :, 0]
        return (
            torch.nn.functional.one_hot(torch.from_numpy(chosen), self.means.shape[1]).float(),
            torch.from_numpy(residual).float(),
        )

    def decode(self, logits: Tensor, residual: Tensor, *, soft: bool) -> Tensor:
        """(n, c) values of logits (n, c, K) and residuals (n, c).

        ``soft``: components mixed by their probabilities, as published; otherwise the most likely
        one, with the gradient of the soft.
        """
        means, spreads = (
            torch.as_tensor(values, dtype=logits.dtype, device=logits.device)
            for values in (self.means, self.spreads)
        )
        share = torch.softmax(logits, 2)
        if not soft:
            hard = torch.nn.functional.one_hot(share.argmax(2), share.shape[2]).to(share)
            share = hard + share - share.detach()
        return (share * (means + residual[:, :, None] * spreads)).sum(2)
