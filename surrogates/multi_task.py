"""The surrogate ``multi_task_gp``: one Gaussian process over several quantities, or over several
levels of theory.

Intrinsic coregionalisation (E. V. Bonilla, K. M. A. Chai, C. K. I. Williams, NeurIPS 2007):
covariance K(x, x') B(t, t'), the matrix B between tasks learned from the labels. Each task's values
are standardised by themselves, so that levels may differ by an offset and a scale, and have noise
of their own: what is stated of each label, and one learned part a task. What is cheap
and correlated fills in for what is costly; what is not, does not. O((sum of labels)^3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from botorch.models import MultiTaskGP
from botorch.models.model import Model
from botorch.models.transforms import Normalize
from botorch.posteriors import Posterior
from gpytorch.mlls import ExactMarginalLogLikelihood
from pydantic import Field
from torch import Tensor

from campaign.types import Candidate, FloatArray
from surrogates.described import (
    Described,
    DescribedConfig,
    Fitted,
    no_labels,
    stated_noise,
)
from surrogates.descriptors.describer import Describer
from surrogates.gp import GaussianProcess, GaussianProcessConfig, KernelName, kernel
from surrogates.likelihood import load_parameters, maximise, parameters_of
from surrogates.standard import standard_units
from surrogates.stated_noise import likelihood_of_tasks

Labels = tuple[Sequence[Candidate], FloatArray]


class MultiTaskConfig(DescribedConfig):
    kernel: KernelName = Field(
        "linear_and_rbf", description="Covariance function of the descriptors."
    )
    refit_growth: float = Field(
        0.1, ge=0, description="Hyperparameters are fitted anew once labels grew by this share (1)."
    )
    max_iterations: int = Field(
        100, ge=1, description="Maximum number of L-BFGS iterations of a fit."
    )


def _with_task(x: Tensor, task: int) -> Tensor:
    """(..., d + 1) from (..., d)."""
    return torch.cat([x, torch.full_like(x[..., :1], float(task))], dim=-1)


class TaskView(Model):  # type: ignore[misc]
    """One task of a multi-task model, as a model of the descriptors alone."""

    def __init__(self, model: MultiTaskGP, task: int) -> None:
        super().__init__()
        self._model, self._task = model, task

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size()

    def posterior(self, X: Tensor, *args: Any, **kwargs: Any) -> Posterior:
        return self._model.posterior(_with_task(X, self._task), *args, **kwargs)


class MultiTaskGaussianProcess:
    Config = MultiTaskConfig
    knows_noise: ClassVar[Literal[True]] = True

    def __init__(self, config: MultiTaskConfig) -> None:
        self.config = config
        Describer(config.descriptors, ())

    def fit(
        self,
        candidates: Sequence[Candidate],
        values: FloatArray,
        *,
        noise: FloatArray | None = None,
        previous: Mapping[str, Any] | None = None,
    ) -> Fitted:
        """One task alone is an ordinary process."""
        settings = self.config.model_dump(exclude={"descriptors"}) | {
            "descriptors": self.config.descriptors
        }
        alone = GaussianProcessConfig.model_validate(
            settings, context={"elements": self.config.elements}
        )
        return GaussianProcess(alone).fit(candidates, values, noise=noise, previous=previous)

    def fit_quantities(
        self,
        labels: Mapping[str, Labels],
        *,
        noise: Mapping[str, FloatArray] | None = None,
        previous: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Fitted]:
        """A view for each quantity; the first records the hyperparameters of all."""
        model, described, facts = self._train(labels, noise or {}, previous)
        return {
            name: Fitted(TaskView(model, task), described, facts if task == 0 else {})
            for task, name in enumerate(labels)
        }

    def fit_levels(
        self,
        labels: Mapping[str, Labels],
        *,
        noise: Mapping[str, FloatArray] | None = None,
        previous: Mapping[str, Any] | None = None,
    ) -> Fitted:
        """The last column of ``features`` is the level, 0 the cheapest; ``features`` of candidates
        alone are of the highest.
        """
        model, described, facts = self._train(labels, noise or {}, previous)
        return FittedLevels(model, described, facts, len(labels))

    def _train(
        self,
        labels: Mapping[str, Labels],
        noise: Mapping[str, FloatArray],
        previous: Mapping[str, Any] | None,
    ) -> tuple[MultiTaskGP, Described, Mapping[str, Any]]:
        """Raises InputError where a task has no labels."""
        if empty := [name for name, (known, _) in labels.items() if not known]:
            raise no_labels(" and of ".join(empty))
        tasks = list(labels.values())
        everything = list(
            {
                candidate.id: candidate for candidates, _ in tasks for candidate in candidates
            }.values()
        )
        described = Described(self.config, everything)
        parts = [
            _with_task(described.features(list(known)), task)
            for task, (known, _) in enumerate(tasks)
        ]
        x = torch.cat(parts)
        by_task = [torch.from_numpy(np.asarray(values, dtype=float)) for _, values in tasks]
        y = torch.cat(by_task)[:, None]
        d = x.shape[1] - 1
        stated = [stated_noise(noise.get(name)) for name in labels]
        units = standard_units(by_task, stated)
        model = MultiTaskGP(
            x,
            y,
            task_feature=-1,
            covar_module=kernel(self.config.kernel, d),
            all_tasks=list(range(len(tasks))),
            likelihood=likelihood_of_tasks(stated, by_task, units),
            outcome_transform=units,
            input_transform=Normalize(d=d + 1, indices=list(range(d))),
        )
        n, notes, optimised_at = len(y), "hyperparameters kept", 0
        same = previous is not None and previous.get("columns") == described.names
        is_known = same and load_parameters(model, (previous or {}).get("parameters", {}))
        if (
            is_known
            and previous is not None
            and n < (1 + self.config.refit_growth) * previous["optimised_at"]
        ):
            optimised_at = int(previous["optimised_at"])
        else:
            notes = maximise(
                ExactMarginalLogLikelihood(model.likelihood, model),
                iterations=self.config.max_iterations,
            )
            optimised_at = n
        model.eval()
        facts = {
            "kernel": self.config.kernel,
            "parameters": parameters_of(model),
            "optimised_at": optimised_at,
            "notes": notes,
        }
        return model, described, facts


class FittedLevels(Fitted):
    """A model over levels. A candidate without a level is taken at the highest."""

    def __init__(
        self, model: MultiTaskGP, described: Described, facts: Mapping[str, Any], n_levels: int
    ) -> None:
        super().__init__(model, described, facts)
        self.n_levels = n_levels

    def features_at(self, candidates: Sequence[Candidate], level: int) -> Tensor:
        """(n, d + 1) at a level, 0 the cheapest."""
        return _with_task(self._described.features(candidates), level)

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        return self.features_at(candidates, self.n_levels - 1)
