"""Crystals from latent vectors: annealed Langevin dynamics, and a sampler with far fewer calls of
the decoder.

The decoder gives the displacement toward the data in units of the noise's width s, so the score is
that over s. Langevin: Y. Song, S. Ermon, NeurIPS 2019, algorithm 1: the same number of steps at
each level. Focused: nearly all steps at the levels at which a crystal forms out of disorder, about
a twentieth to an eighth of the distance between atoms; above them positions stay uniform whatever
is done, and below them ancestral steps (Y. Song et al., ICLR 2021, eq. 47) take the rest of the
noise away. Near: the same from a known crystal of the predicted phase with a little noise, at
levels where a crystal does not melt.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softmax

from campaign.types import Crystal
from generators.networks.graph import Batch
from generators.pcdvae.model import PCDVAE
from generators.pcdvae.templates import Templates


@dataclass(frozen=True)
class Langevin:
    """steps at each of the network's noise levels, of size ``rate`` (s / smallest s)^2."""

    steps: int = 100
    rate: float = 1e-4

    def calls(self, levels: int) -> int:
        return self.steps * levels


@dataclass(frozen=True)
class Focused:
    """``steps`` Langevin steps of size ``rate`` s^2 as s falls from ``first`` to ``last``, in
    (V/N)^(1/3); then ``ancestral`` steps.
    """

    steps: int = 170
    ancestral: int = 20
    first: float = 0.13
    last: float = 0.044
    rate: float = 1.4

    def calls(self, levels: int) -> int:
        return self.steps + self.ancestral


@dataclass(frozen=True)
class Near:
    """From templates with normal noise of width ``noise`` (V/N)^(1/3), as ``after`` goes on; as
    ``otherwise`` where no template fits.
    """

    noise: float = 0.10
    after: Focused = Focused(steps=40, first=0.06)
    otherwise: Focused = Focused()

    def calls(self, levels: int) -> int:
        return self.after.calls(levels)


Sampler = Langevin | Focused | Near
Progress = Callable[[int, int], None]
_CACHED_MESSAGES = 8 * 54 * 20 * 128


@torch.no_grad()
def sample(
    model: PCDVAE,
    latent: Tensor,
    sampler: Sampler,
    *,
    counts: Tensor | None = None,
    templates: Templates | None = None,
    progress: Progress | None = None,
) -> list[Crystal]:
    """One crystal for each latent vector (b, latent), of ``counts`` (b,) atoms, by the head where
    not given. ``templates``: what ``Near`` begins from.

    Draws from torch's global state. In reduced precision where the decoder's weights are
    (``in_reduced_precision``). On a processor only as many crystals go together as have messages
    that fit its cache, which is a third faster than all at once.
    """
    if counts is None:
        counts = model.n_atoms(latent)[:, 1:].argmax(1) + 1
    if isinstance(sampler, Near):
        return _near(model, latent, sampler, counts, templates, progress)
    return _in_parts(model, latent, sampler, counts, None, progress)


def _near(
    model: PCDVAE,
    latent: Tensor,
    sampler: Near,
    counts: Tensor,
    templates: Templates | None,
    progress: Progress | None,
) -> list[Crystal]:
    found = template_positions(model, latent, counts, templates)
    begun = [row for row, positions in enumerate(found) if positions is not None]
    others = [row for row, positions in enumerate(found) if positions is None]
    made: dict[int, Crystal] = {}
    for rows, way, positions in (
        (begun, sampler.after, [found[row] for row in begun]),
        (others, sampler.otherwise, None),
    ):
        if rows:
            crystals = _in_parts(
                model, latent[rows], way, counts[rows], positions, progress, sampler.noise
            )
            made |= zip(rows, crystals, strict=True)
    return [made[row] for row in range(len(latent))]


def _in_parts(
    model: PCDVAE,
    latent: Tensor,
    sampler: Langevin | Focused,
    counts: Tensor,
    begun: Sequence[Tensor | None] | None,
    progress: Progress | None,
    noise: float = 0.0,
) -> list[Crystal]:
    """``begun``: the fractional positions (n, 3) of each, to which ``noise`` (V/N)^(1/3) is
    added.
    """
    sizes = model.sizes.decoder
    fitting = _CACHED_MESSAGES // (int(counts.max()) * sizes.neighbours * sizes.hidden)
    together = len(latent) if latent.is_cuda else max(1, fitting)
    parts = list(zip(torch.split(latent, together), torch.split(counts, together), strict=True))
    calls = sampler.calls(model.noise.levels)
    crystals: list[Crystal] = []
    for number, (vectors, atoms) in enumerate(parts):

        def told(call: int, done: int = number * calls) -> None:
            if progress is not None:
                progress(done + call, len(parts) * calls)

        batch = start(model, vectors, atoms)
        if begun is not None:
            first = number * together
            batch = _beside(batch, begun[first : first + len(atoms)], noise)
        crystals += _sample(model, vectors, batch, sampler, told)
    return crystals


def _beside(batch: Batch, positions: Sequence[Tensor | None], noise: float) -> Batch:
    """A batch with fractional positions (n, 3) of each crystal, and noise (V/N)^(1/3) on them."""
    placed = torch.cat([one for one in positions if one is not None])
    moved = noise * _unit(batch) * torch.randn_like(placed)
    return replace(batch, fractional=(placed + batch.to_fractional(moved)) % 1.0)


def _sample(
    model: PCDVAE,
    latent: Tensor,
    batch: Batch,
    sampler: Langevin | Focused,
    told: Callable[[int], None],
) -> list[Crystal]:
    phase = model.predicted_phase(latent)
    dtype = model.element.weight.dtype
    logits = batch.lattice.new_zeros(len(batch.numbers), len(model.known))

    def displacement(batch: Batch) -> Tensor:
        nonlocal logits
        vectors, logits = model.decode(batch, latent.to(dtype), phase)
        return vectors.float()

    steps = (
        _langevin(model, sampler)
        if isinstance(sampler, Langevin)
        else _focused(model, batch, sampler)
    )
    for call, (move, width) in enumerate(steps, start=1):
        moved = move * displacement(batch) + width * torch.randn_like(batch.fractional)
        numbers = logits.masked_fill(~model.known, -torch.inf).argmax(1) + 1
        batch = replace(
            batch, fractional=(batch.fractional + batch.to_fractional(moved)) % 1.0, numbers=numbers
        )
        told(call)
    return batch.crystals()


def in_reduced_precision(model: PCDVAE) -> PCDVAE:
    """A copy whose decoder multiplies in bfloat16; geometry and heads stay as they are."""
    model = copy.deepcopy(model)
    model.decoder.bfloat16()
    model.element.bfloat16()
    return model


Step = tuple[Tensor | float, Tensor | float]
"""Factor of the displacement, and width of the noise (angstrom); for all atoms, or (n, 1)."""


def _langevin(model: PCDVAE, sampler: Langevin) -> Iterator[Step]:
    levels = model.position_levels.tolist()
    for level in levels:
        step = sampler.rate * (level / levels[-1]) ** 2
        yield from [(step / level, (2 * step) ** 0.5)] * sampler.steps


def _focused(model: PCDVAE, batch: Batch, sampler: Focused) -> Iterator[Step]:
    unit = _unit(batch)
    for level in np.geomspace(sampler.first, sampler.last, sampler.steps).tolist():
        yield sampler.rate * level * unit, (2 * sampler.rate) ** 0.5 * level * unit
    reached = sampler.last * (1 + sampler.rate) ** 0.5 * unit
    ratios = (model.position_levels[-1] / reached) ** (1 / max(1, sampler.ancestral - 1))
    for index in range(sampler.ancestral):
        level = reached * ratios**index
        following = level * ratios if index < sampler.ancestral - 1 else 0.0 * level
        removed = level**2 - following**2
        yield removed / level, following * removed.sqrt() / level


def _unit(batch: Batch) -> Tensor:
    """(n, 1) each atom's (V/N)^(1/3) in angstrom."""
    found: Tensor = (torch.linalg.det(batch.lattice).abs() / batch.counts) ** (1 / 3)
    return found[batch.crystal, None]


@torch.no_grad()
def template_positions(
    model: PCDVAE, latent: Tensor, counts: Tensor, templates: Templates | None
) -> list[Tensor | None]:
    """By latent vector: the fractional positions (n, 3) of the template that fits its predicted
    phase, size and cell; None where none does.
    """
    if templates is None:
        return [None] * len(latent)
    cells = (model.lattice(latent) * model.lattice_deviation + model.lattice_mean).double()
    phases = model.predicted_phase(latent)
    found = (
        templates.nearest(cell, phase, n)
        for cell, phase, n in zip(
            cells.cpu().numpy(), phases.tolist(), counts.tolist(), strict=True
        )
    )
    return [
        None if one is None else torch.tensor(one, dtype=torch.float32, device=latent.device)
        for one in found
    ]


def undecoded(
    model: PCDVAE, latent: Tensor, counts: Tensor, templates: Templates
) -> list[Crystal | None]:
    """The starts of ``Near`` without noise, and nothing done to them: what they are worth alone."""
    found: list[Crystal | None] = []
    for row, positions in enumerate(template_positions(model, latent, counts, templates)):
        batch = start(model, latent[row : row + 1], counts[row : row + 1])
        made = None if positions is None else replace(batch, fractional=positions).crystals()[0]
        found.append(made)
    return found


@torch.no_grad()
def start(model: PCDVAE, latent: Tensor, counts: Tensor) -> Batch:
    """Uniform positions in the predicted cell of ``counts`` (b,) atoms, with the predicted
    composition.
    """
    lattice = model.lattices(latent, counts)
    share = softmax(model.composition(latent).masked_fill(~model.known, -torch.inf), dim=1)
    numbers = torch.cat([_elements(p, int(n)) for p, n in zip(share, counts, strict=True)])
    return Batch(
        lattice.float(), torch.rand(len(numbers), 3, device=latent.device), numbers, counts
    )


def _elements(share: Tensor, n: int) -> Tensor:
    """(n,) atomic numbers in random order: round(n p) of each element, the rest drawn."""
    whole = (share * n).round().long().clamp_max(n)
    numbers = torch.repeat_interleave(torch.arange(1, len(share) + 1, device=share.device), whole)
    if len(numbers) < n:
        numbers = torch.cat(
            [numbers, torch.multinomial(share, n - len(numbers), replacement=True) + 1]
        )
    return numbers[torch.randperm(len(numbers), device=share.device)][:n]
