"""The seven models of the paper on the matrix form, and a variant of its flow matching.

Generation: diffusion, sampled by DDPM or DDIM, and flow matching from normal or uniform noise.
Modification: regression, diffusion that sees the initial crystal (C. Saharia et al., Palette,
2022), and flow matching from the initial crystal. L. Novitskiy et al. (2024), algorithms 1 to 11.
oreloop's variant of flow matching: a lattice in units of the elements' volumes, standardised;
time scaled for its embedding; random origins and orders of equal atoms in training; coordinates
that move the shortest way on the torus; losses of the rows that hold atoms; energies standardised,
and left out at times for guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from campaign.errors import InputError
from campaign.types import Crystal
from generators.matrix_unet.losses import COORDINATE_LOSSES, CoordinateLoss, absolute
from generators.matrix_unet.matrix import (
    FIRST_LATTICE_ROW,
    SITES,
    Conditions,
    conditions_of,
    crystals_of,
    matrices,
)
from generators.matrix_unet.unet import MatrixUNet, Preset
from generators.polymorphs import Polymorph

Method = Literal["flow", "diffusion", "regression"]
Noise = Literal["normal", "uniform"]
Variant = Literal["paper", "oreloop"]
Sampler = Literal["euler", "ddpm", "ddim"]
TIMES = 1000
LEFT_OUT = 0.15
"""Share (1) of the energies that training leaves out, for guidance."""


@dataclass(frozen=True)
class Design:
    """Which of the models; ``modifies``: from an initial crystal. ``noise`` is that of flow
    matching for generation.

    ``coordinate_loss`` is that of regression, whose targets are coordinates; the other methods' are
    differences or noise.
    """

    method: Method = "flow"
    modifies: bool = False
    noise: Noise = "uniform"
    variant: Variant = "paper"
    preset: Preset = "small"
    coordinate_loss: CoordinateLoss = "periodic"

    def __post_init__(self) -> None:
        if self.method == "regression" and not self.modifies:
            raise InputError(
                "regression modifies a crystal: it makes none from noise",
                hint="use flow or diffusion to generate",
            )
        if self.variant == "oreloop" and self.method != "flow":
            raise InputError(
                f"oreloop's variant is one of flow matching, not of {self.method}",
                hint="use method flow, or variant paper",
            )


@dataclass(frozen=True)
class Examples:
    """What is learned from: matrices (b, 64, 3) of the targets, their conditions, and the matrices
    of initial crystals where there are.
    """

    target: Tensor
    conditions: Conditions
    initial: Tensor | None = None


class MatrixModel(nn.Module):
    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design = design
        self.network = MatrixUNet(
            design.preset, sees_initial=design.modifies and design.method == "diffusion"
        )
        self.register_buffer("lattice_scale", torch.stack([torch.zeros(3, 3), torch.ones(3, 3)]))
        self.register_buffer("energy_scale", torch.tensor([0.0, 1.0]))
        self.register_buffer("atomic_volumes", torch.zeros(119))
        self.lattice_scale: Tensor
        self.energy_scale: Tensor
        self.atomic_volumes: Tensor

    @property
    def device(self) -> torch.device:
        return self.energy_scale.device

    @property
    def is_of_oreloop(self) -> bool:
        return self.design.variant == "oreloop"

    @torch.no_grad()
    def fit_scales(
        self, items: Sequence[Polymorph], energies: Sequence[float], atomic_volumes: Tensor
    ) -> None:
        """Of oreloop's variant, from the crystals and the energies, or energy differences, that are
        learned from.
        """
        self.atomic_volumes.copy_(atomic_volumes)
        self.energy_scale.copy_(
            torch.tensor([float(np.mean(energies)), float(np.std(energies).clip(1e-3))])
        )
        lattices = matrices([item.crystal for item in items])[:, FIRST_LATTICE_ROW:]
        numbers = conditions_of(
            [item.crystal.numbers.tolist() for item in items], [1] * len(items), [0.0] * len(items)
        ).numbers
        scaled = lattices / self.edge(numbers)
        self.lattice_scale.copy_(torch.stack([scaled.mean(0), scaled.std(0).clamp_min(0.1)]))

    def edge(self, numbers: Tensor) -> Tensor:
        """(b, 1, 1) the cube root of the elements' volumes, in angstrom."""
        return self.atomic_volumes[numbers].sum(1)[:, None, None] ** (1 / 3)

    def encode(self, x: Tensor, numbers: Tensor) -> Tensor:
        """A matrix as the network sees it."""
        if not self.is_of_oreloop:
            return x
        lattice = (
            x[:, FIRST_LATTICE_ROW:] / self.edge(numbers) - self.lattice_scale[0]
        ) / self.lattice_scale[1]
        return torch.cat([x[:, :FIRST_LATTICE_ROW], lattice], 1)

    def decode(self, x: Tensor, numbers: Tensor) -> Tensor:
        if not self.is_of_oreloop:
            return x
        lattice = (
            x[:, FIRST_LATTICE_ROW:] * self.lattice_scale[1] + self.lattice_scale[0]
        ) * self.edge(numbers)
        return torch.cat([x[:, :FIRST_LATTICE_ROW], lattice], 1)

    def scaled(self, conditions: Conditions) -> Conditions:
        """Energies of oreloop's variant, in deviations of the data, 0 where none is asked for."""
        if not self.is_of_oreloop:
            return conditions
        energy = (conditions.energy - self.energy_scale[0]) / self.energy_scale[1]
        return replace(conditions, energy=torch.where(torch.isfinite(energy), energy, 0.0))

    def predict(
        self, x: Tensor, time: Tensor, conditions: Conditions, initial: Tensor | None = None
    ) -> Tensor:
        return torch.as_tensor(
            self.network(x, time * (TIMES if self.is_of_oreloop else 1), conditions, initial)
        )

    def loss(self, examples: Examples) -> Tensor:
        """Half the coordinates' and half the lattice's, meaned over crystals (sections 3.1, 3.2 and
        appendix A.4).
        """
        if self.is_of_oreloop:
            examples = _with_random_origin(examples)
        conditions = self.scaled(examples.conditions)
        if self.is_of_oreloop:
            keep = (torch.rand_like(conditions.energy) >= LEFT_OUT).float()
            conditions = replace(conditions, energy=conditions.energy * keep)
        target = self.encode(examples.target, conditions.numbers)
        if self.design.method == "regression":
            assert examples.initial is not None
            found = self.predict(examples.initial, torch.zeros_like(conditions.energy), conditions)
            of_coordinates = COORDINATE_LOSSES[self.design.coordinate_loss](
                found[:, :SITES], target[:, :SITES]
            )
            return self._total(of_coordinates, found, target, conditions)
        if self.design.method == "diffusion":
            noise = torch.randn_like(target)
            times = torch.randint(TIMES, (len(target),), device=target.device)
            noised = schedule("ddpm").add_noise(target, noise, times)
            found = self.predict(noised, times, conditions, examples.initial)
            return self._total(
                absolute(found[:, :SITES], noise[:, :SITES]), found, noise, conditions
            )
        start = (
            self.start(target, conditions)
            if examples.initial is None
            else self.encode(examples.initial, conditions.numbers)
        )
        velocity = target - start
        if self.is_of_oreloop:
            velocity = torch.cat(
                [_wrapped(velocity[:, :FIRST_LATTICE_ROW]), velocity[:, FIRST_LATTICE_ROW:]], 1
            )
        time = torch.rand_like(conditions.energy)
        found = self.predict(start + time[:, None, None] * velocity, time, conditions)
        return self._total(
            absolute(found[:, :SITES], velocity[:, :SITES]), found, velocity, conditions
        )

    def _total(
        self, of_rows: Tensor, found: Tensor, wanted: Tensor, conditions: Conditions
    ) -> Tensor:
        if self.is_of_oreloop:
            of_rows = of_rows * (conditions.numbers[:, :SITES] > 0)
        coordinates = of_rows.sum(1) / conditions.counts
        lattice = absolute(found[:, FIRST_LATTICE_ROW:], wanted[:, FIRST_LATTICE_ROW:]).sum(1) / 3
        return (0.5 * coordinates + 0.5 * lattice).mean()

    def start(self, like: Tensor, conditions: Conditions) -> Tensor:
        """Noise that flow matching starts from; oreloop's coordinates are uniform, its
        lattice normal, other rows zero.
        """
        if not self.is_of_oreloop:
            return (
                torch.rand_like(like) if self.design.noise == "uniform" else torch.randn_like(like)
            )
        x = torch.rand_like(like) * (conditions.numbers > 0)[..., None]
        x[:, FIRST_LATTICE_ROW:] = torch.randn_like(x[:, FIRST_LATTICE_ROW:])
        return x

    @torch.no_grad()
    def sample(
        self,
        conditions: Conditions,
        initial: Tensor | None = None,
        *,
        steps: int = 100,
        sampler: Sampler = "euler",
        guidance: float = 1.0,
    ) -> list[Crystal | None]:
        """A crystal for each condition, None where its lattice spans no volume. Draws from torch's
        own stream.

        ``guidance`` above 1 goes further from what no energy gives; it is one of oreloop's variant.
        """
        conditions = self.scaled(conditions.to(self.device))
        initial = initial.to(self.device) if initial is not None else None
        like = torch.empty(len(conditions.counts), 64, 3, device=self.device)
        if self.design.method == "regression":
            x = self.predict(_given(initial), torch.zeros_like(conditions.energy), conditions)
        elif self.design.method == "diffusion":
            x = self._denoised(
                torch.randn_like(like),
                conditions,
                initial,
                steps,
                "ddpm" if sampler == "euler" else sampler,
            )
        else:
            x = (
                self.start(like, conditions)
                if initial is None
                else self.encode(initial, conditions.numbers)
            )
            for k in range(steps):
                time = torch.full_like(conditions.energy, k / steps)
                velocity = self.predict(x, time, conditions)
                if guidance != 1.0:
                    free = self.predict(
                        x, time, replace(conditions, energy=torch.zeros_like(conditions.energy))
                    )
                    velocity = torch.lerp(free, velocity, guidance)
                x = x + velocity / steps
        return crystals_of(self.decode(x, conditions.numbers), conditions.numbers)

    def _denoised(
        self,
        x: Tensor,
        conditions: Conditions,
        initial: Tensor | None,
        steps: int,
        sampler: Literal["ddpm", "ddim"],
    ) -> Tensor:
        plan = schedule(sampler)
        plan.set_timesteps(steps)
        for time in plan.timesteps:
            noise = self.predict(x, time.to(x.device).expand(len(x)), conditions, initial)
            x = plan.step(noise, time, x).prev_sample
        return x


def schedule(sampler: Literal["ddpm", "ddim"]) -> Any:
    """The cosine schedule of 1,000 times, predicting noise."""
    from diffusers import DDIMScheduler, DDPMScheduler

    common: dict[str, Any] = {
        "num_train_timesteps": TIMES,
        "beta_schedule": "squaredcos_cap_v2",
        "clip_sample": False,
    }
    if sampler == "ddpm":
        return DDPMScheduler(**common, variance_type="fixed_small")  # type: ignore[no-untyped-call]
    return DDIMScheduler(**common, set_alpha_to_one=True)  # type: ignore[no-untyped-call]


def _given(initial: Tensor | None) -> Tensor:
    if initial is None:
        raise InputError("regression needs crystals to modify, got none")
    return initial


def _wrapped(difference: Tensor) -> Tensor:
    return difference - difference.round()


def _with_random_origin(examples: Examples) -> Examples:
    """The same crystals with another origin and other orders of equal atoms; initial crystals move
    with their targets.
    """
    numbers = examples.conditions.numbers
    is_atom = (numbers > 0)[..., None].float()
    order = torch.argsort(_sort_key(numbers), dim=1)
    shift = torch.rand(len(numbers), 1, 3, device=numbers.device) * is_atom

    def moved(x: Tensor) -> Tensor:
        ordered = x.gather(1, order[..., None].expand_as(x))
        return torch.where(is_atom > 0, (ordered + shift) % 1.0, ordered)

    return replace(
        examples,
        target=moved(examples.target),
        initial=moved(examples.initial) if examples.initial is not None else None,
    )


def _sort_key(numbers: Tensor) -> Tensor:
    """Blocks of equal elements stay where they are, with random orders inside; rows without atoms
    stay too.
    """
    starts = (
        torch.cat([torch.zeros_like(numbers[:, :1]), (numbers[:, 1:] != numbers[:, :-1]).long()], 1)
        .cumsum(1)
        .double()
    )
    place = torch.arange(numbers.shape[1], device=numbers.device) / (10 * numbers.shape[1])
    return starts + torch.where(numbers > 0, torch.rand_like(starts) * 0.9, place)


def atomic_volumes_of(items: Sequence[Polymorph]) -> Tensor:
    """(119,) in cubic angstrom by atomic number: the elements' volumes that the crystals' add up to
    best; the tables' for the others.
    """
    from ase.data import chemical_symbols

    from campaign.crystals.lattice import atomic_volume

    found = torch.tensor(
        [0.0, *(atomic_volume(symbol) for symbol in chemical_symbols[1:104]), *[20.0] * 15]
    )
    elements = sorted({int(number) for item in items for number in np.unique(item.crystal.numbers)})
    counts = np.array(
        [[(item.crystal.numbers == number).sum() for number in elements] for item in items],
        dtype=float,
    )
    prior = found[elements].numpy().astype(float)
    ridge = np.sqrt(1e-3 * len(items)) * np.eye(len(elements))
    volumes = np.array([item.crystal.volume for item in items])
    solved = np.linalg.lstsq(
        np.concatenate([counts, ridge]), np.concatenate([volumes, ridge @ prior]), rcond=None
    )[0]
    found[elements] = torch.as_tensor(solved.clip(2.0), dtype=found.dtype)
    return found
