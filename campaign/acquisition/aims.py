"""What is wanted of a model's outputs, as tensors: gains and bounds in standard units of the
labels.

Models answer in the quantities' own units; ``Aims.standards`` lead from there to standard units, in
which all acquisition computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from campaign.types import Objective
from campaign.units import Standard

_LEAST_DEVIATION = 1e-9
"""In standard units."""


@dataclass(frozen=True)
class Bound:
    """A quantity has to be at least (sign +1) or at most (sign -1) a value, in its own unit; in the
    aims in standard units.
    """

    output: int
    sign: int
    value: float


@dataclass(frozen=True)
class Aims:
    """Objectives are the first outputs; bounds may be on any; all in standard units. ``standards``
    (m,) by output.
    """

    objectives: tuple[Objective, ...]
    standards: tuple[Standard, ...]
    bounds: tuple[Bound, ...] = ()
    weights: tuple[float, ...] = (1.0,)

    @classmethod
    def of(
        cls,
        objectives: Sequence[Objective],
        values: Sequence[Tensor],
        bounds: Sequence[Bound],
        weights: Sequence[float],
        noise: Sequence[Tensor | None] = (),
    ) -> Aims:
        """Of objectives and bounds in the quantities' own units; ``values`` are the labels (n,) of
        each output, ``noise`` their standard deviations (n,) where stated.
        """
        standards = tuple(
            Standard.of(known.numpy(), None if stated is None else stated.numpy())
            for known, stated in zip(values, noise or [None] * len(values), strict=True)
        )
        wanted = tuple(
            objective
            if objective.value is None
            else replace(objective, value=standards[i].of_value(objective.value))
            for i, objective in enumerate(objectives)
        )
        within = tuple(
            replace(bound, value=standards[bound.output].of_value(bound.value)) for bound in bounds
        )
        return cls(wanted, standards, within, tuple(weights) or (1.0,) * len(objectives))

    @property
    def is_linear(self) -> bool:
        """Whether the gain is the first output times a number, without bounds: what closed forms
        are for.
        """
        return (
            len(self.objectives) == 1
            and not self.bounds
            and self.objectives[0].direction != "match"
        )

    @property
    def factor(self) -> Tensor:
        """The number that the first output is multiplied by where the gain is linear."""
        return torch.tensor(self.weights[0] * self.objectives[0].sign, dtype=torch.float64)

    def gains(self, values: Tensor) -> Tensor:
        """(..., k) of values (..., m): the gain in each of k objectives, larger is better."""
        parts = []
        for i, objective in enumerate(self.objectives):
            value = values[..., i]
            if objective.direction == "match":
                assert objective.value is not None
                parts.append(-(value - objective.value).abs())
            else:
                parts.append(objective.sign * value)
        return torch.stack(parts, dim=-1)

    def gain(self, values: Tensor, X: Tensor | None = None) -> Tensor:
        """(...,) of values (..., m): the weighted sum of the gains."""
        gains = self.gains(values)
        return (gains * torch.tensor(self.weights, dtype=gains.dtype)).sum(-1)

    def constraints(self) -> list[Callable[[Tensor], Tensor]] | None:
        """Functions of values (..., m) that are at most zero where a bound holds, as BoTorch takes
        them.
        """

        def violation(bound: Bound) -> Callable[[Tensor], Tensor]:
            return lambda values: bound.sign * (bound.value - values[..., bound.output])

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
            z = (
                bound.sign
                * (mean[:, bound.output] - bound.value)
                / variance[:, bound.output].sqrt().clamp_min(_LEAST_DEVIATION)
            )
            found += torch.special.log_ndtr(z)
        return found
