"""What all surrogates share: descriptors in, a BoTorch model in the quantity's own unit out."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from botorch.models.model import Model
from botorch.posteriors import Posterior
from pydantic import Field, PrivateAttr, ValidationInfo, model_validator
from torch import Tensor

from campaign.errors import InputError
from campaign.parameters import Parameters, PluginParameter
from campaign.types import Candidate, Crystal, FloatArray
from surrogates.descriptors.describer import Describer, elements_of

_VARIES = 1e-9
_ROWS_AT_ONCE = 16_384


def no_labels(quantity: str) -> InputError:
    """What a model says that has nothing to learn from; ``quantity`` where it models several."""
    of = f" of {quantity}" if quantity else ""
    return InputError(
        f"expected at least one label{of} to fit a model to, got none",
        hint="label crystals before a model is asked",
    )


class DescribedConfig(Parameters):
    descriptors: tuple[PluginParameter, ...] = Field(
        (PluginParameter(use="alloy"),),
        min_length=1,
        description="Embedders whose columns the model sees, side by side.",
    )
    components: int | None = Field(
        None,
        ge=1,
        description="Principal components of the standardised columns that the model sees "
        "instead of all of them.",
    )
    _elements: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _remember_elements(self, info: ValidationInfo) -> DescribedConfig:
        self._elements = tuple((info.context or {}).get("elements", ()))
        return self

    @property
    def elements(self) -> tuple[str, ...]:
        """Of the search space, where known."""
        return self._elements


class Described:
    """From crystals of the search space's elements to the columns that a model sees.

    These are the columns that vary in the training data, or their principal components, and beside
    them those that do not vary yet, such as the fraction of an element that no label holds: by how
    far they lie from the value that all labels have, at most 1, so that a model knows that it has
    seen nothing like it.
    """

    def __init__(self, config: DescribedConfig, candidates: Sequence[Candidate]) -> None:
        """Raises InputError where there are no candidates."""
        if not candidates:
            raise no_labels("")
        crystals = [candidate.crystal for candidate in candidates]
        self._describer = Describer(
            config.descriptors, sorted({*config.elements, *elements_of(crystals)})
        )
        rows = self._describer.describe(crystals)
        varies = np.ptp(rows, axis=0) > _VARIES
        self._varying, self._same = np.flatnonzero(varies), np.flatnonzero(~varies)
        self._value = rows[0, self._same]
        self._projection: FloatArray | None = None
        kept = rows[:, self._varying]
        self._center, self._scale = kept.mean(0), kept.std(0)
        if config.components is not None and config.components < kept.shape[1]:
            _, _, axes = np.linalg.svd((kept - self._center) / self._scale, full_matrices=False)
            self._projection = axes[: config.components].T

    @property
    def names(self) -> list[str]:
        varying = [self._describer.names[column] for column in self._varying]
        if self._projection is not None:
            varying = [f"component{i + 1}" for i in range(self._projection.shape[1])]
        return varying + [self._describer.names[column] for column in self._same]

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """(n, d), one row per candidate; many are described chunk by chunk, so that nothing but
        the result grows with them.
        """
        found = np.empty((len(candidates), len(self.names)))
        for start in range(0, len(candidates), _ROWS_AT_ONCE):
            chunk = slice(start, start + _ROWS_AT_ONCE)
            found[chunk] = self._columns([candidate.crystal for candidate in candidates[chunk]])
        return torch.from_numpy(found)

    def _columns(self, crystals: Sequence[Crystal]) -> FloatArray:
        rows = self._describer.describe(crystals)
        varying = rows[:, self._varying]
        if self._projection is not None:
            varying = (varying - self._center) / self._scale @ self._projection
        unlike = (rows[:, self._same] - self._value) / np.maximum(np.abs(self._value), 1.0)
        return np.concatenate([varying, unlike.clip(-1.0, 1.0)], axis=1)


class Fitted:
    """A fitted model with the descriptors it was fitted on."""

    def __init__(self, model: Model, described: Described, facts: Mapping[str, Any]) -> None:
        self.model = model
        self._described, self._facts = described, facts

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """(n, d) what the model sees, one row per candidate."""
        return self._described.features(candidates)

    def posterior(self, candidates: Sequence[Candidate]) -> Posterior:
        """Joint posterior of the candidates' values."""
        with torch.no_grad():
            return self.model.posterior(self.features(candidates))

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        return {"columns": self._described.names, **self._facts}


class DescribedSurrogate(ABC):
    """Fits on descriptor columns. A subclass trains the model."""

    Config: ClassVar[type[DescribedConfig]]

    def __init__(self, config: Any) -> None:
        self.config = config
        Describer(config.descriptors, ())

    @abstractmethod
    def train(
        self, x: Tensor, y: Tensor, previous: Mapping[str, Any] | None
    ) -> tuple[Model, Mapping[str, Any]]:
        """The model for x (n, d) and y (n, 1), and what the ledger records of it; ``previous``
        facts are of the same columns.
        """

    def fit(
        self,
        candidates: Sequence[Candidate],
        values: FloatArray,
        *,
        previous: Mapping[str, Any] | None = None,
    ) -> Fitted:
        """Fit to values (n,). Raises InputError where n is 0."""
        return self._fitted(candidates, values, previous, self.train)

    def _fitted(
        self,
        candidates: Sequence[Candidate],
        values: FloatArray,
        previous: Mapping[str, Any] | None,
        train: Callable[..., tuple[Model, Mapping[str, Any]]],
    ) -> Fitted:
        described = Described(self.config, candidates)
        x = described.features(candidates)
        y = torch.from_numpy(np.asarray(values, dtype=np.float64))[:, None]
        is_known = previous is not None and previous.get("columns") == described.names
        model, facts = train(x, y, previous if is_known else None)
        model.eval()
        return Fitted(model, described, facts)


class NoiseAwareSurrogate(DescribedSurrogate):
    """One that counts a label for less, the more noise is stated of it."""

    knows_noise: ClassVar[Literal[True]] = True

    @abstractmethod
    def train(
        self,
        x: Tensor,
        y: Tensor,
        previous: Mapping[str, Any] | None,
        noise: Tensor | None = None,
    ) -> tuple[Model, Mapping[str, Any]]:
        """The same, with the labels' standard deviations (n,) where they are stated."""

    def fit(
        self,
        candidates: Sequence[Candidate],
        values: FloatArray,
        *,
        noise: FloatArray | None = None,
        previous: Mapping[str, Any] | None = None,
    ) -> Fitted:
        """Fit to values (n,) with standard deviations (n,), 0 where a label states none. Raises
        InputError where n is 0.
        """
        train = functools.partial(self.train, noise=stated_noise(noise))
        return self._fitted(candidates, values, previous, train)


def stated_noise(noise: FloatArray | None) -> Tensor | None:
    """(n,) as models take it; None where none is stated."""
    if noise is None or not np.any(noise):
        return None
    return torch.from_numpy(np.asarray(noise, dtype=np.float64))
