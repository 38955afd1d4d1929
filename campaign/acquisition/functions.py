"""Acquisition functions by name, on models of rows, in standard units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from botorch.acquisition import (
    AcquisitionFunction,
    LogExpectedImprovement,
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
    qLowerBoundMaxValueEntropy,
    qUpperConfidenceBound,
)
from botorch.acquisition.multi_objective import logei
from botorch.acquisition.multi_objective.logei import (
    qLogExpectedHypervolumeImprovement,
    qLogNoisyExpectedHypervolumeImprovement,
)
from botorch.acquisition.multi_objective.objective import GenericMCMultiOutputObjective
from botorch.acquisition.objective import GenericMCObjective, ScalarizedPosteriorTransform
from botorch.sampling import SobolQMCNormalSampler
from botorch.utils.multi_objective.box_decompositions.non_dominated import (
    FastNondominatedPartitioning,
)
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from botorch.utils.multi_objective.pareto import is_non_dominated
from botorch.utils.transforms import t_batch_mode_transform
from torch import Tensor

from campaign.acquisition.aims import Aims
from campaign.acquisition.rows import FinitePoolModel, MarginalModel
from campaign.config.schema import AcquisitionConfig

# BoTorch would compile a kernel here at first use, behind a lock file: where a process is killed
# meanwhile, all later ones wait for ever.
logei._load_attempted = True

_CHUNK = 4096
_STRADDLE = 1.96
_NO_LABEL_IS_FEASIBLE = -3.0
"""The value to improve on, in standard deviations below the mean, while no label holds all
bounds.
"""

IN_THE_QUANTITYS_UNIT = frozenset({"uncertainty", "straddle"})
"""Acquisition functions whose value is told in the quantity's unit."""


@dataclass(frozen=True)
class Known:
    """What is labelled, in standard units: observed values (m, outputs), NaN where an output has
    none.

    ``means`` (m, outputs) are the posterior's there; ``is_noisy`` (m, outputs): labels whose oracle
    states that they have noise.
    """

    values: Tensor
    means: Tensor
    is_noisy: Tensor | None = None

    def filled(self) -> Tensor:
        """Observed values; the posterior's means where there are none, and where a label is
        noisy, as the best of noisy labels is the luckiest.
        """
        unsure = self.values.isnan()
        if self.is_noisy is not None:
            unsure = unsure | self.is_noisy
        return torch.where(unsure, self.means, self.values)


def sampler(config: AcquisitionConfig, seed: int) -> SobolQMCNormalSampler:
    return SobolQMCNormalSampler(torch.Size([config.samples]), seed=seed)


def best_gain(aims: Aims, values: Tensor) -> Tensor:
    """The best gain among labels that hold all bounds."""
    gain, feasible = aims.gain(values), aims.is_feasible(values)
    return (
        gain[feasible].max()
        if feasible.any()
        else gain.mean() + _NO_LABEL_IS_FEASIBLE * sum(aims.weights)
    )


def reference_point(aims: Aims, values: Tensor) -> Tensor:
    """A little below the worst of the Pareto front of the labels that hold all bounds, of all
    labels where none does.
    """
    gains, feasible = aims.gains(values), aims.is_feasible(values)
    kept = gains[feasible] if feasible.any() else gains
    found: Tensor = infer_reference_point(kept[is_non_dominated(kept)], scale=0.1)
    return found


def single(
    config: AcquisitionConfig, aims: Aims, marginal: MarginalModel, known: Known, seed: int
) -> Tensor:
    """(n,) the value of each row by itself, larger is better: what the shortlist is made by."""
    mean, deviation = marginal.mean, marginal.variance.sqrt()
    match config.use:
        case "uncertainty":
            return deviation[:, 0]
        case "straddle":
            return straddle(aims, mean[:, 0], deviation[:, 0])
        case "greedy_mean":
            return aims.gain(mean) + aims.log_probability(mean, marginal.variance)
        case "upper_confidence_bound" | "thompson":
            weights = torch.tensor(aims.weights, dtype=deviation.dtype)
            spread = (deviation[:, : len(aims.objectives)] * weights).square().sum(-1).sqrt()
            return (
                aims.gain(mean)
                + config.beta * spread
                + aims.log_probability(mean, marginal.variance)
            )
        case "log_expected_hypervolume_improvement":
            return _over(
                marginal, _hypervolume_improvement(config, aims, marginal, known.filled(), seed)
            )
        case _:
            observed = known.filled() if config.use == "log_expected_improvement" else known.means
            best = best_gain(aims, observed)
            if aims.is_linear:
                direction = ScalarizedPosteriorTransform(aims.factor.reshape(1).to(mean.dtype))
                return _over(
                    marginal,
                    LogExpectedImprovement(marginal, best_f=best, posterior_transform=direction),
                )
            return _over(marginal, _expected_improvement(config, aims, marginal, best, None, seed))


def _over(marginal: MarginalModel, acquisition: AcquisitionFunction) -> Tensor:
    rows = torch.arange(len(marginal.mean), dtype=marginal.mean.dtype)[:, None, None]
    return torch.cat([acquisition(chunk) for chunk in torch.split(rows, _CHUNK)])


def straddle(aims: Aims, mean: Tensor, deviation: Tensor) -> Tensor:
    """Uncertain and near the level: 1.96 s - |m - level| (B. Bryan et al., NeurIPS 2005)."""
    level = aims.objectives[0].value
    assert level is not None
    return _STRADDLE * deviation - (mean - level).abs()


def _expected_improvement(
    config: AcquisitionConfig,
    aims: Aims,
    model: FinitePoolModel | MarginalModel,
    best: Tensor,
    pending: Tensor | None,
    seed: int,
) -> AcquisitionFunction:
    return qLogExpectedImprovement(
        model,
        best_f=best,
        sampler=sampler(config, seed),
        objective=GenericMCObjective(aims.gain),
        constraints=aims.constraints(),
        X_pending=pending,
    )


def _hypervolume_improvement(
    config: AcquisitionConfig, aims: Aims, model: MarginalModel, values: Tensor, seed: int
) -> AcquisitionFunction:
    reference = reference_point(aims, values)
    gains = aims.gains(values)[aims.is_feasible(values)]
    return qLogExpectedHypervolumeImprovement(
        model,
        ref_point=reference.tolist(),
        partitioning=FastNondominatedPartitioning(
            ref_point=reference, Y=gains if len(gains) else None
        ),
        sampler=sampler(config, seed),
        objective=GenericMCMultiOutputObjective(lambda values, X=None: aims.gains(values)),
        constraints=aims.constraints(),
    )


class _Conditioned(AcquisitionFunction):  # type: ignore[misc]
    """Pending rows count as observed without noise."""

    def __init__(self, model: FinitePoolModel) -> None:
        super().__init__(model=model)
        self._start = model
        self.X_pending: Tensor | None = None

    def set_X_pending(self, X_pending: Tensor | None = None) -> None:  # noqa: N802
        self.X_pending, self.model = X_pending, self._start
        for row in [] if X_pending is None else X_pending.reshape(-1).long().tolist():
            self.model = self.model.observing(row)


class DiscreteKnowledgeGradient(_Conditioned):
    """How much the largest posterior mean over the rows is expected to grow by observing a row as
    well as the pending ones.

    E max_i (m_i + s_i(x) Z) - max_i m_i with s(x) = cov(., x) / sqrt(var x) (P. Frazier, W. Powell,
    S. Dayanik, INFORMS J. Comput. 21 (2009) 599), by quantiles of Z. O(n^2) for each of n rows: for
    shortlists.
    """

    def __init__(self, model: FinitePoolModel, candidates: Tensor, quantiles: int) -> None:
        super().__init__(model)
        self._candidates = candidates
        self._z = torch.special.ndtri(
            (torch.arange(quantiles, dtype=torch.float64) + 0.5) / quantiles
        )

    @t_batch_mode_transform(expected_q=1)  # type: ignore[untyped-decorator]
    def forward(self, X: Tensor) -> Tensor:
        rows, all_rows = X.reshape(-1).long(), self._candidates.reshape(-1).long()
        mean, covariance = self.model.mean[all_rows, 0], self.model.covariance[0]
        step = (
            covariance[rows][:, all_rows] / covariance[rows, rows].clamp_min(1e-18).sqrt()[:, None]
        )
        best = torch.stack([(mean + step * z).max(-1).values for z in self._z]).mean(0)
        return (best - mean.max()).clamp_min(1e-12).log()


class ConditionalSpread(_Conditioned):
    """Posterior standard deviation, or the straddle score of ``aims``, as if the pending rows had
    been observed.
    """

    def __init__(self, model: FinitePoolModel, aims: Aims | None) -> None:
        super().__init__(model)
        self._aims = aims

    @t_batch_mode_transform(expected_q=1)  # type: ignore[untyped-decorator]
    def forward(self, X: Tensor) -> Tensor:
        rows = X.reshape(-1).long()
        deviation = self.model.covariance[0].diagonal()[rows].clamp_min(0).sqrt()
        return (
            deviation
            if self._aims is None
            else straddle(self._aims, self.model.mean[rows, 0], deviation)
        )


def joint(
    config: AcquisitionConfig,
    aims: Aims,
    model: FinitePoolModel,
    known: Known,
    candidates: Tensor,
    labelled: Tensor,
    seed: int,
) -> AcquisitionFunction:
    """The acquisition function of a batch on the rows of a joint posterior; ``candidates`` (s, 1)
    and ``labelled`` (m, 1) are rows.
    """
    objective = GenericMCObjective(aims.gain)
    match config.use:
        case "log_expected_improvement":
            return _expected_improvement(
                config, aims, model, best_gain(aims, known.filled()), None, seed
            )
        case "log_noisy_expected_improvement":
            noisy = qLogNoisyExpectedImprovement(
                model,
                X_baseline=labelled,
                sampler=sampler(config, seed),
                objective=objective,
                constraints=aims.constraints(),
                prune_baseline=True,
                cache_root=True,
            )
            noisy.prune_baseline = False  # once is enough: it does so anew for each pending set
            return noisy
        case "log_expected_hypervolume_improvement":
            return qLogNoisyExpectedHypervolumeImprovement(
                model,
                ref_point=reference_point(aims, known.filled()).tolist(),
                X_baseline=labelled,
                sampler=sampler(config, seed),
                objective=GenericMCMultiOutputObjective(lambda values, X=None: aims.gains(values)),
                constraints=aims.constraints(),
                prune_baseline=True,
                cache_root=False,
            )
        case "max_value_entropy":
            return qLowerBoundMaxValueEntropy(model.scaled(aims.factor), candidate_set=candidates)
        case "knowledge_gradient":
            return DiscreteKnowledgeGradient(
                model.scaled(aims.factor), candidates, quantiles=config.samples
            )
        case "uncertainty":
            return ConditionalSpread(model, None)
        case "straddle":
            return ConditionalSpread(model, aims)
        case _:
            return qUpperConfidenceBound(
                model, beta=config.beta**2, sampler=sampler(config, seed), objective=objective
            )
