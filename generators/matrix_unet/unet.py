"""The network on the matrix form: a one-dimensional UNet over the rows, under time, elements, space
group and energy.

The UNet is that of A. Q. Nichol and P. Dhariwal (ICML 2021) with one dimension in place of two;
conditions and sizes are those of L. Novitskiy et al. (2024), section 4 and appendix A.3. ``paper``
has 304,781,763 parameters for generation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from generators.matrix_unet.matrix import ELEMENT_COLUMNS, ROWS, Conditions

Preset = Literal["paper", "small"]


@dataclass(frozen=True)
class UNetSizes:
    channels: int
    multipliers: tuple[int, ...]
    residual_blocks: int
    encoders: tuple[int, int, int]
    """Channels of the encoders of elements and of the space group."""


PRESETS: dict[Preset, UNetSizes] = {
    "paper": UNetSizes(128, (1, 2, 4, 8), 7, (64, 128, 256)),
    "small": UNetSizes(40, (1, 2, 3), 2, (24, 48, 64)),
}


def sinusoids(time: Tensor, n: int, longest: float = 10000.0) -> Tensor:
    """(b, n) of times (b,): cosines and sines of n / 2 frequencies from 1 down to 1 /
    ``longest``.
    """
    frequencies = torch.exp(
        -math.log(longest) * torch.arange(n // 2, device=time.device) / (n // 2)
    )
    angle = time[:, None].float() * frequencies
    return torch.cat([angle.cos(), angle.sin()], 1)


def normalisation(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)


class ResidualBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, n_condition: int) -> None:
        super().__init__()
        self.before = nn.Sequential(
            normalisation(n_in), nn.SiLU(), nn.Conv1d(n_in, n_out, 3, padding=1)
        )
        self.condition = nn.Sequential(nn.SiLU(), nn.Linear(n_condition, n_out))
        self.after = nn.Sequential(
            normalisation(n_out), nn.SiLU(), zero(nn.Conv1d(n_out, n_out, 3, padding=1))
        )
        self.skip = nn.Identity() if n_in == n_out else nn.Conv1d(n_in, n_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.before(x) + self.condition(condition)[..., None]
        return torch.as_tensor(self.skip(x) + self.after(y))


class Attention(nn.Module):
    """One head over the rows, added to what comes in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.to_qkv = normalisation(channels), nn.Conv1d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(self.norm(x)).transpose(1, 2).chunk(3, -1)
        return torch.as_tensor(
            x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2))
        )


class Step(nn.Module):
    """A residual block with attention."""

    def __init__(self, n_in: int, n_out: int, n_condition: int) -> None:
        super().__init__()
        self.block, self.attention = ResidualBlock(n_in, n_out, n_condition), Attention(n_out)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return torch.as_tensor(self.attention(self.block(x, condition)))


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(
            self.convolution(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        )


def zero(layer: nn.Conv1d) -> nn.Conv1d:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class UNet(nn.Module):
    """(b, 3, 64) from (b, 3, 64) under a condition (b, 4 channels)."""

    def __init__(self, sizes: UNetSizes) -> None:
        super().__init__()
        channels, n_condition = sizes.channels, 4 * sizes.channels
        self.first = nn.Conv1d(3, channels, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        kept, width = [channels], channels
        for level, multiplier in enumerate(sizes.multipliers):
            for _ in range(sizes.residual_blocks):
                self.down.append(Step(width, multiplier * channels, n_condition))
                width = multiplier * channels
                kept.append(width)
            if level < len(sizes.multipliers) - 1:
                self.down.append(nn.Conv1d(width, width, 3, stride=2, padding=1))
                kept.append(width)
        self.middle = nn.ModuleList(
            [Step(width, width, n_condition), ResidualBlock(width, width, n_condition)]
        )
        for level, multiplier in reversed(list(enumerate(sizes.multipliers))):
            for k in range(sizes.residual_blocks + 1):
                self.up.append(Step(width + kept.pop(), multiplier * channels, n_condition))
                width = multiplier * channels
                if level and k == sizes.residual_blocks:
                    self.up.append(Up(width))
        self.last = nn.Sequential(
            normalisation(width), nn.SiLU(), zero(nn.Conv1d(width, 3, 3, padding=1))
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.first(x)
        kept = [x]
        for layer in self.down:
            x = layer(x, condition) if isinstance(layer, Step) else layer(x)
            kept.append(x)
        for layer in self.middle:
            x = layer(x, condition)
        for layer in self.up:
            x = (
                layer(torch.cat([x, kept.pop()], 1), condition)
                if isinstance(layer, Step)
                else layer(x)
            )
        return torch.as_tensor(self.last(x))


class MatrixUNet(nn.Module):
    """Matrices (b, 64, 3) from matrices, times (b,) and conditions; ``sees_initial``: also from the
    matrix of an initial crystal.
    """

    def __init__(self, preset: Preset, *, sees_initial: bool = False) -> None:
        super().__init__()
        sizes = PRESETS[preset]
        self.preset, self.sees_initial = preset, sees_initial
        channels, (a, b, c) = sizes.channels, sizes.encoders
        self.unet = UNet(sizes)
        self.time = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels)
        )
        self.elements = nn.Sequential(
            nn.Conv1d(ELEMENT_COLUMNS, a, 3),
            nn.GELU(),
            nn.Conv1d(a, b, 3),
            nn.GELU(),
            nn.Conv1d(b, c, 3),
            nn.GELU(),
            nn.Flatten(),
        )
        self.elements_out = nn.Linear(c * (ROWS - 6), c)
        self.group = nn.Sequential(
            nn.Conv2d(192, a, 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(a, b, 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(b, c, 2),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        n_condition = 2 * c + 1
        if sees_initial:
            self.initial = nn.Sequential(
                nn.Conv1d(ROWS, b, 2),
                nn.GELU(),
                nn.Conv1d(b, c, 2),
                nn.GELU(),
                nn.Flatten(),
                nn.Linear(c, c),
            )
            n_condition += c
        self.condition = nn.Linear(n_condition, 4 * channels)

    def forward(
        self, x: Tensor, time: Tensor, conditions: Conditions, initial: Tensor | None = None
    ) -> Tensor:
        elements = self.elements_out(self.elements(conditions.elements.transpose(1, 2)))
        parts = [elements, self.group(conditions.operations), conditions.energy[:, None]]
        if self.sees_initial and initial is not None:
            parts.append(self.initial(initial))
        condition = self.time(sinusoids(time, self.unet.first.out_channels)) + self.condition(
            torch.cat(parts, 1)
        )
        return torch.as_tensor(self.unet(x.transpose(1, 2), condition).transpose(1, 2))
