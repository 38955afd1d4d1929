"""The conformance kit for surrogates: ours and the users'. ``oreloop surrogate check`` runs it, and
``check_surrogate`` in pytest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from campaign.errors import InputError
from campaign.protocols import KnowsNoise, PluginSpec
from campaign.seeds import library_seeds
from campaign.testing.bench import ELEMENTS, SEED, alloys, built, energies, shape_told, spec_of
from campaign.testing.findings import Check, Finding, findings, passed, tell_nobody
from campaign.types import Candidate, FloatArray

_N_LABELLED, _N_FRESH = 24, 6
_UNIT, _OFF = 1e6, 20
_TOLERANCE = 0.05
"""Of the labels' spread: by how much predictions may change with the unit."""
_SAME = 1e-9


def examine_surrogate(
    spec: PluginSpec, *, on_step: Callable[[str], None] = tell_nobody
) -> Iterator[Finding]:
    """Run all checks on a surrogate, one finding after another. The alloys that it sees are of the
    elements of ``spec``.
    """
    yield from findings(_Checks(spec).all(), on_step)


class _Checks:
    def __init__(self, spec: PluginSpec) -> None:
        elements = spec.elements or ELEMENTS
        self.spec = replace(spec, elements=elements)
        crystals = alloys(elements, _N_LABELLED + _N_FRESH)
        candidates = sorted(
            (Candidate(crystal) for crystal in crystals), key=lambda candidate: candidate.id
        )
        self.known, self.fresh = candidates[:-_N_FRESH], candidates[-_N_FRESH:]
        self.values = energies([candidate.crystal for candidate in self.known], elements)

    def all(self) -> dict[str, Check]:
        found: dict[str, Check] = {
            "posterior": self.posterior,
            "features": self.features,
            "row by row": self.row_by_row,
            "same seed, same fit": self.same_again,
            "no label": self.no_label,
            "one label": self.one_label,
            "hyperparameters": self.hyperparameters,
            "another unit": self.another_unit,
            "labels unchanged": self.labels_unchanged,
        }
        if self.knows_noise:
            found["stated noise"] = self.stated_noise
        return found

    @cached_property
    def knows_noise(self) -> bool:
        try:
            return isinstance(built(self.spec), KnowsNoise)
        except Exception:
            return False

    def fit(
        self,
        n: int | None = None,
        *,
        factor: float = 1.0,
        seed: int = SEED,
        previous: Mapping[str, Any] | None = None,
    ) -> Any:
        with library_seeds(seed):
            return built(self.spec).fit(self.known[:n], factor * self.values[:n], previous=previous)

    @cached_property
    def fitted(self) -> Any:
        return self.fit()

    def moments(
        self, fitted: Any, candidates: Sequence[Candidate]
    ) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation (n,) each, where they are what they have to be."""
        posterior = fitted.posterior(candidates)
        n = len(candidates)
        found = []
        for name in ("mean", "variance"):
            array = np.asarray(getattr(posterior, name).detach())
            assert array.shape == (n, 1), (
                f"the posterior's {name} of {n} candidates is {shape_told(array)}, expected {n} x 1"
            )
            assert np.isfinite(array).all(), f"the posterior's {name} is not finite"
            found.append(array[:, 0])
        assert (found[1] >= 0).all(), f"a variance is negative: {found[1].min():.3g}"
        return found[0], np.sqrt(found[1])

    def change(self, fitted: Any) -> float:
        """By how much its means differ from those of the first fit, in the labels' spread."""
        mean, other = self.moments(self.fitted, self.fresh)[0], self.moments(fitted, self.fresh)[0]
        return float(np.abs(mean - other).max()) / float(self.values.std())

    def posterior(self) -> str:
        mean, deviation = self.moments(self.fitted, self.fresh)
        error = (
            np.sqrt(np.mean((self.moments(self.fitted, self.known)[0] - self.values) ** 2))
            / self.values.std()
        )
        return (
            f"mean {mean.mean():.4g}, standard deviation {deviation.mean():.2g}; error on "
            f"its labels {error:.2g} of their spread"
        )

    def features(self) -> str:
        rows = np.asarray(self.fitted.features(self.fresh))
        assert rows.shape[:-1] == (len(self.fresh),), (
            f"features of {len(self.fresh)} candidates are {shape_told(rows)}"
        )
        assert np.isfinite(rows).all(), "features are not finite"
        by_model = (
            self.fitted.model.posterior(self.fitted.features(self.fresh)).mean.detach().reshape(-1)
        )
        by_candidate = self.moments(self.fitted, self.fresh)[0]
        assert np.allclose(by_model, by_candidate, rtol=1e-6, atol=1e-6 * self.values.std()), (
            "`model` on `features` is not `posterior`"
        )
        return f"{rows.shape[1]} columns"

    def row_by_row(self) -> str:
        """Rows follow their candidates in any order, and alone."""
        rows, backward = (
            np.asarray(self.fitted.features(these)) for these in (self.fresh, self.fresh[::-1])
        )
        assert np.allclose(rows, backward[::-1], rtol=1e-6, atol=1e-9), (
            "features do not follow the order of the candidates"
        )
        mean, other = (
            self.moments(self.fitted, self.fresh)[0],
            self.moments(self.fitted, self.fresh[::-1])[0],
        )
        small = 1e-4 * self.values.std()
        assert np.allclose(mean, other[::-1], rtol=1e-6, atol=small), (
            "means do not follow the order of the candidates"
        )
        alone = [self.moments(self.fitted, [candidate])[0][0] for candidate in self.fresh]
        assert np.allclose(mean, alone, rtol=1e-6, atol=small), (
            "a candidate's mean depends on those asked with it"
        )
        return ""

    def same_again(self) -> str:
        change = self.change(self.fit())
        assert change < _SAME, (
            f"a second fit with the same seed changes means by {change:.2g} of the labels' spread"
        )
        return ""

    def no_label(self) -> str:
        try:
            self.fit(0)
        except InputError as error:
            return error.message
        except Exception as error:
            raise AssertionError(
                f"raised {type(error).__name__}: {error}; expected an InputError that says "
                "what is missing"
            ) from error
        raise AssertionError("it is fitted to nothing; expected an InputError")

    def one_label(self) -> str:
        try:
            fitted = self.fit(1)
        except InputError as error:
            return f"refused: {error.message}"
        mean, deviation = self.moments(fitted, self.fresh)
        return (
            f"mean {mean.mean():.4g}, standard deviation {deviation.mean():.2g}, label "
            f"{self.values[0]:.4g}"
        )

    def hyperparameters(self) -> str:
        """As the ledger keeps them and gives them to the next fit."""
        found = dict(self.fitted.hyperparameters)
        try:
            kept = json.loads(json.dumps(found, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise AssertionError(
                f"hyperparameters are nothing that can be recorded: {error}"
            ) from error
        again = self.fit(previous=kept)
        change = self.change(again)
        assert change < 1.0, (
            f"a fit that starts from those of the same labels changes means by {change:.2g} of "
            "the labels' spread"
        )
        third = self.fit(
            previous=json.loads(json.dumps(dict(again.hyperparameters), allow_nan=False))
        )
        self.moments(third, self.fresh)
        self.moments(self.fit(previous={"of": "another surrogate"}), self.fresh)
        return f"{', '.join(found) or 'none'}; means change by {change:.1g} of the labels' spread"

    def another_unit(self) -> str:
        """Labels in a unit a million times smaller give predictions and doubts a million times
        larger.
        """
        other = self.moments(self.fit(factor=_UNIT), self.fresh)
        spread = float(self.values.std())
        worst = 0.0
        for name, here, there in zip(
            ("means", "standard deviations"),
            self.moments(self.fitted, self.fresh),
            other,
            strict=True,
        ):
            change = float(np.abs(there / _UNIT - here).max()) / spread
            assert change < _TOLERANCE, (
                f"{name} change by {change:.2g} of the labels' spread with their unit"
            )
            worst = max(worst, change)
        return f"largest change {worst:.1g} of the labels' spread"

    def labels_unchanged(self) -> str:
        values, known = self.values.copy(), list(self.known)
        with library_seeds(SEED):
            built(self.spec).fit(known, values)
        assert np.array_equal(values, self.values), "fit changes the values that it was given"
        assert known == self.known, "fit changes the list of candidates that it was given"
        return ""

    def stated_noise(self) -> str:
        """One label is far off, and says that it may be; then none states anything."""
        values, noise = self.values.copy(), np.zeros(len(self.values))
        spread = float(values.std())
        values[0] += _OFF * spread
        noise[0] = 10 * _OFF * spread

        def fit(values: FloatArray, noise: FloatArray | None) -> Any:
            with library_seeds(SEED):
                return built(self.spec).fit(self.known, values, noise=noise)

        mean = self.moments(fit(values, noise), self.fresh)[0]
        change = float(np.abs(mean - self.moments(self.fitted, self.fresh)[0]).max()) / spread
        assert change < 1.0, (
            f"a label that is wrong by {_OFF} of the labels' spreads and states ten times that as "
            f"its noise changes means by {change:.2g} spreads"
        )
        silent = self.change(fit(self.values, None))
        assert silent < _SAME, f"no noise changes means by {silent:.2g} of the labels' spread"
        return f"a worthless label changes means by {change:.1g} of the labels' spread"


def check_surrogate(
    surrogate: str,
    params: Mapping[str, Any] | None = None,
    *,
    elements: Sequence[str] = ELEMENTS,
    folder: Path | None = None,
) -> list[Finding]:
    """For pytest: run the kit on a surrogate by name or ``module:Class``. Raises AssertionError
    that lists what failed.

    ``folder`` is where a user's module lies.
    """
    spec = spec_of("surrogates", surrogate, params, elements, folder)
    built(spec)
    return passed(examine_surrogate(spec))
