"""Refinement in the space of free variables (Algorithm 1 of the paper): many crystals towards one
local environment, each on its own.

The paper descends with AdamW at one cutoff, where an atom without a neighbour inside feels nothing
(``descent``). Here each crystal takes Levenberg-Marquardt steps on its residuals: first the nearest
distances, which have no range and cost little; then the power spectrum at a longer cutoff; then at
the target's, where atoms beyond the bonds are kept off. What is not accepted after that begins
again, moved at random, with the distances only, and takes the rest of the way once its bonds are
right. Accepted crystals leave the batch.

S = sum over sites m_i |P_i - target|^2 / N: eq. 1 of O. G. Ridwan et al. summed over components,
sites weighted by their m_i atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from campaign.types import FloatArray
from generators.cvae import kernel
from generators.cvae.descent import descent
from generators.cvae.environment import Environment, Spectrum, limits_of
from generators.cvae.free_variables import Batch
from generators.cvae.loss import loss_and_slope
from generators.cvae.nets import dimensions_of

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
_GOAL = 1e-6


@dataclass(frozen=True)
class Recipe:
    """How crystals are refined.

    variant: ``paper`` takes ``descent_steps`` of AdamW at ``descent_rate`` on the target's own
    spectrum, from each start as it is, and nothing else; all but largest_loss and dimension are of
    ``oreloop``.

    volume: least and largest volume per atom (angstrom^3) at each start. volumes: at which a start
    that is not accepted is taken again, one after the other. shells: how many of the nearest
    distances the first stage looks at, 0 for no such stage. cutoffs: (angstrom, alpha in
    1/angstrom^2) of the spectra before the target's own, in a first descent. near, margin, share:
    how many distances are kept from becoming shorter in the spectral stages (0: none), to what
    share of the target's, and their weight. steps, plateau: most steps of each stage, and the gain
    below which it ends. restarts: how often what is not accepted begins again, moved by ``jolts``
    (least and largest standard deviation, angstrom), and ``again`` through which first stages: the
    shells find bonds at the least cost, the spectra a small S. largest_loss, dimension: what is
    accepted beside valid bonds.
    """

    volume: tuple[float, float] = (6.0, 12.0)
    volumes: tuple[float, ...] = ()
    shells: int = 4
    cutoffs: tuple[tuple[float, float], ...] = ((3.0, 1.0),)
    near: int = 6
    margin: float = 0.85
    share: float = 10.0
    steps: int = 30
    plateau: float = 1e-2
    restarts: int = 32
    jolts: tuple[float, float] = (0.3, 2.0)
    again: Literal["shells", "spectra"] = "shells"
    largest_loss: float = np.inf
    dimension: int = 0
    variant: Literal["paper", "oreloop"] = "oreloop"
    descent_steps: int = 500
    descent_rate: float = 2e-3


@dataclass(frozen=True, eq=False)
class Refined:
    """batch: with refined variables. loss: (B,) S. is_valid: (B,) each site with the target's
    bonds. is_accepted: (B,) and all else asked.

    restarts: (B,) taken.
    """

    batch: Batch
    loss: FloatArray
    is_valid: BoolArray
    is_accepted: BoolArray
    restarts: IntArray


def is_valid(batch: Batch, environment: Environment, least: float = 0.8) -> BoolArray:
    """(B,) whether each site has the target's number of bonds, none shorter than ``least`` of the
    longest allowed over 1.3.
    """
    bonded, shortest, _ = kernel.bonds_all(
        *batch.arguments, environment.bond_lengths, limits_of(batch), 1
    )
    wanted = np.array(environment.coordination)[batch.elements]
    lengths = environment.bond_lengths
    return np.asarray(
        np.logical_and.reduceat(bonded == wanted, batch.site_start[:-1])
        & (shortest > least * lengths[lengths > 0].min() / 1.3)
    )


def with_volume(batch: Batch, volume: tuple[float, float]) -> Batch:
    """Cells scaled so that each atom has a volume (angstrom^3) in the range."""
    _, _, present = kernel.bonds_all(
        *batch.arguments, np.full((len(batch.species),) * 2, 0.1), limits_of(batch), 1
    )
    present = np.where(present > 0, present, np.mean(volume))
    factor = (np.clip(present, *volume) / present) ** (1 / 3)
    return batch.with_variables(
        np.where(batch.is_length, batch.variables * factor[:, None], batch.variables)
    )


def refine(
    batch: Batch,
    environment: Environment,
    recipe: Recipe,
    rng: np.random.Generator,
    threads: int = 1,
) -> Refined:
    """Each crystal refined, and begun again where it is not accepted, up to ``recipe.restarts``
    times.
    """
    stages = _Stages(environment, recipe, threads)
    if recipe.variant == "paper":
        return stages.judged(
            descent(
                batch,
                environment.target,
                steps=recipe.descent_steps,
                rate=recipe.descent_rate,
                threads=threads,
            )
        )
    started = with_volume(batch, recipe.volume)
    best = stages.judged(stages.descend(started, [*stages.first, *stages.last]))
    for volume in recipe.volumes:
        left = np.flatnonzero(~best.is_accepted)
        if len(left):
            scaled = with_volume(batch.subset(left), (volume, volume))
            best = _better(
                best, stages.judged(stages.descend(scaled, [*stages.first, *stages.last])), left
            )
    restarts = np.zeros(len(batch), dtype=np.int64)
    for k in range(recipe.restarts):
        left = np.flatnonzero(~best.is_accepted)
        if len(left) == 0:
            break
        restarts[left] += 1
        size = recipe.jolts[0] + (recipe.jolts[1] - recipe.jolts[0]) * k / max(
            1, recipe.restarts - 1
        )
        moved = stages.descend(
            with_volume(jolted(started.subset(left), size, rng), recipe.volume), stages.again
        )
        bonded = np.flatnonzero(is_valid(moved, environment))
        if len(bonded):
            again = stages.judged(stages.descend(moved.subset(bonded), stages.last))
            best = _better(best, again, left[bonded])
    return replace(best, restarts=restarts)


class _Stages:
    def __init__(self, environment: Environment, recipe: Recipe, threads: int) -> None:
        self.environment, self.recipe, self.threads = environment, recipe, threads
        shells = (
            [environment.shells(recipe.shells, recipe.margin).objective] if recipe.shells else []
        )
        longer = [self._kept_apart(environment.stage(*cutoff)) for cutoff in recipe.cutoffs]
        self.first = [*shells, *longer]
        self.again = shells if recipe.again == "shells" else longer
        self.last = [self._kept_apart(environment.target)]

    def _kept_apart(self, spectrum: Spectrum) -> Any:
        if not self.recipe.near:
            return spectrum.objective
        return spectrum.with_shells(
            self.environment.shells(self.recipe.near, self.recipe.margin), self.recipe.share
        )

    def descend(self, batch: Batch, objectives: Sequence[Any]) -> Batch:
        current = batch.with_variables(batch.variables.copy())
        for objective in objectives:
            kept = current.variables.copy()
            limits = limits_of(current, self.recipe.steps, _GOAL, self.recipe.plateau)
            loss, _, _ = kernel.refine_all(
                *current.arguments, objective, limits, self.threads, True
            )
            lost = ~np.isfinite(loss)
            current.variables[lost] = kept[lost]
        return current

    def judged(self, batch: Batch) -> Refined:
        loss, _ = loss_and_slope(batch, self.environment.target, self.threads)
        valid = is_valid(batch, self.environment)
        accepted = valid & (loss <= self.recipe.largest_loss)
        if self.recipe.dimension and accepted.any():
            rows = np.flatnonzero(accepted)
            accepted[rows] = (
                dimensions_of(batch.subset(rows), self.environment) >= self.recipe.dimension
            )
        return Refined(batch, loss, valid, accepted, np.zeros(len(batch), dtype=np.int64))


def _better(best: Refined, again: Refined, rows: IntArray) -> Refined:
    """``best`` with those of ``again`` that are accepted, or valid where it is not, or of a smaller
    loss where they are equal in that.
    """
    rank = again.is_accepted.astype(int) + again.is_valid
    old = best.is_accepted[rows].astype(int) + best.is_valid[rows]
    wins = (rank > old) | ((rank == old) & (again.loss < best.loss[rows]))
    taken = rows[wins]
    best.batch.variables[taken] = again.batch.variables[wins]
    best.loss[taken], best.is_valid[taken], best.is_accepted[taken] = (
        again.loss[wins],
        again.is_valid[wins],
        again.is_accepted[wins],
    )
    return best


def jolted(batch: Batch, size: float, rng: np.random.Generator) -> Batch:
    """Free coordinates moved by normal steps of ``size`` angstrom, lengths of cells by a tenth of
    that.
    """
    variables = batch.variables.copy()
    is_site = ~batch.is_cell & (np.arange(variables.shape[1]) < batch.counts[:, None])
    edge = np.array([np.mean([table.cell[:3]]) for table in batch.names])
    steps = rng.normal(size=variables.shape)
    variables += np.where(is_site, steps * size / edge[:, None], 0.0)
    variables *= np.where(batch.is_length, np.exp(0.1 * size * steps), 1.0)
    return batch.with_variables(variables)
