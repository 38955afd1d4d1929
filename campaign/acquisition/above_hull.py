"""A model of the energy above the hull: one of the formation energy, less the hull of what is
labelled, which models see as a last column.

Below the hull it is negative: so far would the crystal bring the hull down at its composition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from botorch.models.model import Model
from botorch.posteriors import GPyTorchPosterior, Posterior
from gpytorch.distributions import MultivariateNormal
from torch import Tensor

from campaign.acquisition.hull import Points
from campaign.ledger.stability import Diagram
from campaign.protocols import FittedSurrogate
from campaign.types import Candidate


class LessLastColumn(Model):  # type: ignore[misc]
    """A model's answer less the last column of its input: X (..., q, d + 1)."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size(self.model.batch_shape)

    def posterior(self, X: Tensor, *args: Any, **kwargs: Any) -> Posterior:
        joint = self.model.posterior(X[..., :-1], *args, **kwargs).distribution
        return GPyTorchPosterior(
            MultivariateNormal(joint.mean - X[..., -1], joint.lazy_covariance_matrix)
        )


class FittedAboveHull:
    """A fitted model of formation energies, seen from the hull."""

    def __init__(self, formation: FittedSurrogate, diagram: Diagram) -> None:
        self.formation, self.diagram = formation, diagram
        self.model = LessLastColumn(formation.model)

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """(n, d + 1), the hull's formation energy last."""
        return self.with_hull(self.formation.features(candidates), candidates)

    def features_at(self, candidates: Sequence[Candidate], level: int) -> Tensor:
        """(n, d + 1) of a model over levels at one of them."""
        return self.with_hull(self.formation.features_at(candidates, level), candidates)  # type: ignore[attr-defined]

    def with_hull(self, columns: Tensor, candidates: Sequence[Candidate]) -> Tensor:
        return torch.cat(
            [columns, torch.from_numpy(self.diagram.formation_at(candidates))[:, None]], dim=1
        )

    def points(self, candidates: Sequence[Candidate]) -> Points:
        """For the choice by the hull: as the model of formation energies sees them."""
        return Points(self.formation.features(candidates), self.diagram.fractions_of(candidates))

    def points_at(self, candidates: Sequence[Candidate], level: int) -> Points:
        """The same at a level, of a model over levels."""
        columns = self.formation.features_at(candidates, level)  # type: ignore[attr-defined]
        return Points(columns, self.diagram.fractions_of(candidates))

    def posterior(self, candidates: Sequence[Candidate]) -> Posterior:
        with torch.no_grad():
            return self.model.posterior(self.features(candidates))

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        return self.formation.hyperparameters
