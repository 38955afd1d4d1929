"""Random alloys on parent lattices, and their trainable form by the cross-entropy method.

``random_alloy`` draws a composition uniformly from the simplex inside the bounds, then a random
ordering. ``cross_entropy_alloy`` keeps a distribution over lattices, compositions (a Gaussian) and
site occupations, and moves it toward the best labels (R. Y. Rubinstein, Methodol. Comput. Appl.
Probab. 1 (1999) 127): p <- (1 - s) p + s p_elite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray
from pydantic import Field

from campaign.crystals.lattice import ParentLattice, supercell
from campaign.errors import InputError
from campaign.parameters import Parameters
from campaign.protocols import GenerationContext
from campaign.types import Checkpoint, Crystal, FloatArray, LabelledCandidate, Proposal, SearchSpace
from generators.formulas import formulas_of

_TRIES = 200


class RandomAlloyConfig(Parameters):
    lattices: tuple[ParentLattice, ...] = Field(
        ("bcc", "fcc"), min_length=1, description="Parent lattices, drawn with equal chance."
    )
    repeats: tuple[int, int, int] = Field(
        (3, 3, 3), description="Repeats of the two-atom cell; 3 x 3 x 3 has 54 atoms."
    )

    @property
    def n_sites(self) -> int:
        return 2 * int(np.prod(self.repeats))


def round_counts(fractions: FloatArray, n: int) -> NDArray[np.int64]:
    """Whole counts that add up to n, by largest remainder."""
    exact = fractions / fractions.sum() * n
    counts: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1
    return counts


def is_inside(counts: NDArray[np.int64], space: SearchSpace) -> bool:
    return bool(space.holds_counts(counts[None])[0])


def draw_counts(space: SearchSpace, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Atoms of each element, uniform on the simplex inside the bounds; with further rules, one of
    the formulas that hold them.

    Raises InputError where no n-atom cell fits.
    """
    lows, highs = np.array([space.bounds(element) for element in space.elements]).T
    free, shares = max(0.0, 1.0 - lows.sum()), np.zeros(len(space.elements))
    for _ in range(_TRIES):
        shares[highs > 0] = rng.dirichlet(np.ones(np.count_nonzero(highs)))
        counts = round_counts(lows + free * shares, n)
        if is_inside(counts, space):
            return counts
    if space.rules:
        formulas = formulas_of(space, (n, n), rng=rng)
        drawn = formulas[int(rng.integers(len(formulas)))]
        return np.array(
            [
                dict(zip(drawn.symbols, drawn.counts, strict=True)).get(element, 0)
                for element in space.elements
            ]
        )
    raise InputError(
        f"found no {n}-atom composition inside the bounds in {_TRIES} draws",
        hint="widen min_fraction and max_fraction, or take a larger cell",
    )


class RandomAlloy:
    Config: ClassVar[type[RandomAlloyConfig]] = RandomAlloyConfig

    def __init__(self, config: RandomAlloyConfig) -> None:
        self.config = config

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        for _ in range(n):
            lattice = self.config.lattices[rng.integers(len(self.config.lattices))]
            counts = draw_counts(context.space, self.config.n_sites, rng)
            symbols = rng.permutation(np.repeat(context.space.elements, counts))
            yield (
                supercell(lattice, self.config.repeats, symbols.tolist()),
                Proposal(condition={"lattice": lattice}),
            )


_SMOOTHING = 0.7
"""Weight (1) of the best labels in the new distribution; 0.4 to 0.9 in de Boer et al., Annals of
Operations Research 134, 19 (2005), doi:10.1007/s10479-005-5724-z.
"""


class CrossEntropyConfig(RandomAlloyConfig):
    gone: ClassVar[Mapping[str, Any]] = {"smoothing": _SMOOTHING}

    elite_fraction: float = Field(
        0.2, gt=0, lt=1, description="Share (1) of the labels on a lattice that count as the best."
    )
    min_elites: int = Field(5, ge=2, description="Minimum number of best labels to learn from.")
    exploration: float = Field(
        0.1, ge=0, le=1, description="Share (1) of proposals drawn at random as random_alloy does."
    )


class CrossEntropyAlloy(RandomAlloy):
    """A distribution moved toward the best labels. Its checkpoint holds, for lattice l, sites i and
    elements a:

    ``lattice`` (l,) probabilities, ``sites`` (l, i, a) probabilities, ``mean`` (l, a) and
    ``covariance`` (l, a, a) of the composition.
    """

    Config: ClassVar[type[RandomAlloyConfig]] = CrossEntropyConfig
    config: CrossEntropyConfig

    def __init__(self, config: CrossEntropyConfig) -> None:
        super().__init__(config)

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        if context.checkpoint is None:
            yield from super().generate(n, rng=rng, context=context)
            return
        state = context.checkpoint.tensors
        n_random = round(self.config.exploration * n)
        for _ in range(n - n_random):
            which = int(rng.choice(len(self.config.lattices), p=state["lattice"]))
            counts = self._composition(state, which, context.space, rng)
            symbols = self._ordering(state["sites"][which], counts, context.space, rng)
            lattice = self.config.lattices[which]
            yield (
                supercell(lattice, self.config.repeats, symbols),
                Proposal(condition={"lattice": lattice}),
            )
        yield from super().generate(n_random, rng=rng, context=context)

    def _composition(
        self, state: Mapping[str, Any], which: int, space: SearchSpace, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        for _ in range(_TRIES):
            share = rng.multivariate_normal(
                state["mean"][which], state["covariance"][which], method="eigh"
            )
            if share.clip(0).sum() > 0:
                counts = round_counts(share.clip(0), self.config.n_sites)
                if is_inside(counts, space):
                    return counts
        return draw_counts(space, self.config.n_sites, rng)

    @staticmethod
    def _ordering(
        probabilities: FloatArray,
        counts: NDArray[np.int64],
        space: SearchSpace,
        rng: np.random.Generator,
    ) -> list[str]:
        """Fill sites in the order of Gumbel-perturbed log probabilities until each element's atoms
        are used up.
        """
        n_sites, n_elements = probabilities.shape
        score = np.log(probabilities) + rng.gumbel(size=probabilities.shape)
        left, placed = counts.copy(), np.full(n_sites, -1)
        for flat in np.argsort(-score, axis=None):
            site, element = divmod(int(flat), n_elements)
            if placed[site] < 0 and left[element]:
                placed[site], left[element] = element, left[element] - 1
        return [space.elements[element] for element in placed]

    def train(
        self,
        labelled: Sequence[LabelledCandidate],
        *,
        rng: np.random.Generator,
        context: GenerationContext,
    ) -> Checkpoint:
        """Move the distribution toward the best labels, all but the held-out fifth of them."""
        state = (
            self._initial(context.space)
            if context.checkpoint is None
            else dict(context.checkpoint.tensors)
        )
        best = self._elites(labelled, context)
        weight = _SMOOTHING
        counts = np.array([len(elites) for elites in best], dtype=float)
        sites, mean, covariance = (
            state["sites"].copy(),
            state["mean"].copy(),
            state["covariance"].copy(),
        )
        for which, elites in enumerate(best):
            learned = [occupied for occupied, is_held_out in elites if not is_held_out]
            if len(learned) < 2:
                continue
            occupied = np.stack(learned)
            share = occupied.mean(1)
            floor = 0.02
            sites[which] = (1 - weight) * sites[which] + weight * (
                (1 - floor) * occupied.mean(0) + floor / occupied.shape[-1]
            )
            mean[which] = (1 - weight) * mean[which] + weight * share.mean(0)
            covariance[which] = (1 - weight) * covariance[which] + weight * (
                np.cov(share.T) + 1e-4 * np.eye(share.shape[1])
            )
        lattice = state["lattice"]
        if counts.sum():
            lattice = (1 - weight) * lattice + weight * (counts + 0.5) / (counts + 0.5).sum()
        tensors = {
            "lattice": lattice / lattice.sum(),
            "sites": sites,
            "mean": mean,
            "covariance": covariance,
        }
        return Checkpoint(
            tensors=tensors,
            metrics={"elites": float(counts.sum())},
            facts={"elements": ",".join(context.space.elements)},
        )

    def is_improvement(
        self,
        new: Checkpoint,
        old: Checkpoint | None,
        labelled: Sequence[LabelledCandidate],
        *,
        context: GenerationContext,
    ) -> tuple[bool, Mapping[str, float]]:
        """Whether the held-out best labels are likelier under the new distribution than under the
        old one.
        """
        best = self._elites(labelled, context)
        before = self._log_likelihood(
            self._initial(context.space) if old is None else old.tensors, best
        )
        after = self._log_likelihood(new.tensors, best)
        return after > before, {
            "held_out_log_likelihood": after,
            "held_out_log_likelihood_before": before,
        }

    def _initial(self, space: SearchSpace) -> dict[str, FloatArray]:
        n_lattices, n_elements = len(self.config.lattices), len(space.elements)
        dirichlet_covariance = (np.eye(n_elements) - 1 / n_elements) / (
            n_elements * (n_elements + 1)
        )
        return {
            "lattice": np.full(n_lattices, 1 / n_lattices),
            "sites": np.full((n_lattices, self.config.n_sites, n_elements), 1 / n_elements),
            "mean": np.full((n_lattices, n_elements), 1 / n_elements),
            "covariance": np.tile(
                dirichlet_covariance + 1e-4 * np.eye(n_elements), (n_lattices, 1, 1)
            ),
        }

    def _elites(
        self, labelled: Sequence[LabelledCandidate], context: GenerationContext
    ) -> list[list[tuple[FloatArray, bool]]]:
        """By lattice: the one-hot site occupations (i, a) of the best labels, and whether each is
        held out (by its id).
        """
        objective, quantity = context.objective, context.objective.quantity
        known = [
            item
            for item in labelled
            if quantity in item.values and self._lattice_of(item.candidate.crystal) is not None
        ]
        known.sort(key=lambda item: (-objective.gain(item.values[quantity]), item.candidate.id))
        n_best = min(
            len(known), max(self.config.min_elites, round(self.config.elite_fraction * len(known)))
        )
        kinds = np.array([atomic_numbers[element] for element in context.space.elements])
        best: list[list[tuple[FloatArray, bool]]] = [[] for _ in self.config.lattices]
        for item in known[:n_best]:
            which = self._lattice_of(item.candidate.crystal)
            assert which is not None
            occupied = (item.candidate.crystal.numbers[:, None] == kinds).astype(float)
            best[which].append((occupied, int(item.candidate.id[:8], 16) % 5 == 0))
        return best

    def _lattice_of(self, crystal: Crystal) -> int | None:
        """Which of the parent lattices a crystal's sites are; None for any other."""
        if len(crystal) != self.config.n_sites:
            return None
        for which, lattice in enumerate(self.config.lattices):
            ideal = supercell(lattice, self.config.repeats, crystal.symbols)
            edge = (crystal.volume / ideal.volume) ** (1 / 3)
            if np.allclose(crystal.fractional, ideal.fractional, atol=1e-6) and np.allclose(
                crystal.lattice, ideal.lattice * edge, atol=1e-3
            ):
                return which
        return None

    @staticmethod
    def _log_likelihood(
        state: Mapping[str, Any], best: list[list[tuple[FloatArray, bool]]]
    ) -> float:
        """Mean over the held-out best labels of log p(lattice) + log p(composition) + mean over
        sites of log p(site).
        """
        found = []
        for which, elites in enumerate(best):
            mean, covariance = state["mean"][which], state["covariance"][which]
            for occupied, is_held_out in elites:
                if is_held_out:
                    offset = occupied.mean(0) - mean
                    composition = -0.5 * (
                        offset @ np.linalg.solve(covariance, offset)
                        + np.linalg.slogdet(2 * np.pi * covariance)[1]
                    )
                    site = np.log((state["sites"][which] * occupied).sum(1)).mean()
                    found.append(np.log(state["lattice"][which]) + composition + site)
        return float(np.mean(found)) if found else 0.0
