"""What is wanted of a model's outputs, as tensors: gains in units of the labels' standard deviation, and bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from campaign.types import Objective

_LEAST_SPREAD = 1e-9


@dataclass(frozen=True)
class Bound:
    """A quantity has to be at least (sign +1) or at most (sign -1) a value."""

    output: int
    sign: int
    value: float


@dataclass(frozen=True)
class Aims:
    """Objectives are the first outputs; bounds may be on any. ``spreads`` (m,) are the labels' standard deviations by output."""

    objectives: tuple[Objective, ...]
    spreads: tuple[float, ...]
    bounds: tuple[Bound, ...] = ()
    weights: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, objectives: Sequence[Objective], values: Sequence[Tensor], bounds: Sequence[Bound], weights: Sequence[float]) -> Aims:
        spreads = tuple(max(float(known.std()) if len(known) > 1 else 1.0, _LEAST_SPREAD) for known in values)
        return cls(tuple(objectives), spreads, tuple(bounds), tuple(weights) or (1.0,) * len(objectives))

    @property
    def is_linear(self) -> bool:
        """Whether the gain is the first output times a number, without bounds: what closed forms are for."""
        return len(self.objectives) == 1 and not self.bounds and self.objectives[0].direction != "match"

    @property
    def factor(self) -> Tensor:
        """The number that the first output is multiplied by where the gain is linear."""
        return torch.tensor(self.weights[0] * self.objectives[0].sign / self.spreads[0], dtype=torch.float64)

    def gains(self, values: Tensor) -> Tensor:
        """(..., k) of values (..., m): the gain in each of k objectives, larger is better."""
        parts = []
        for i, objective in enumerate(self.objectives):
            value = values[..., i]
            if objective.direction == "match":
                assert objective.value is not None
                parts.append(-(value - objective.value).abs() / self.spreads[i])
            else:
                parts.append(objective.sign * value / self.spreads[i])
        return torch.stack(parts, dim=-1)

    def gain(self, values: Tensor, X: Tensor | None = None) -> Tensor:
        """(...,) of values (..., m): the weighted sum of the gains."""
        gains = self.gains(values)
        return (gains * torch.tensor(self.weights, dtype=gains.dtype)).sum(-1)

    def constraints(self) -> list[Callable[[Tensor], Tensor]] | None:
        """Functions of values (..., m) that are at most zero where a bound holds, as BoTorch takes them."""

        def violation(bound: Bound) -> Callable[[Tensor], Tensor]:
            return lambda values: bound.sign * (bound.value - values[..., bound.output]) / self.spreads[bound.output]

        return [violation(bound) for bound in self.bounds] or None

    def is_feasible(self, values: Tensor) -> Tensor:
        """(...,) whether values (..., m) hold all bounds."""
        found = torch.ones(values.shape[:-1], dtype=torch.bool)
        for bound in self.bounds:
            found &= bound.sign * values[..., bound.output] >= bound.sign * bound.value
        return found

    def log_probability(self, mean: Tensor, variance: Tensor) -> Tensor:
        """(n,) the logarithm of the chance that independent outputs (n, m) hold all bounds."""
        found = torch.zeros(len(mean), dtype=mean.dtype)
        for bound in self.bounds:
            z = bound.sign * (mean[:, bound.output] - bound.value) / variance[:, bound.output].sqrt().clamp_min(_LEAST_SPREAD)
            found += torch.special.log_ndtr(z)
        return found
