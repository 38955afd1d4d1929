"""Training by Muon and Adam with a warm-up, a rate that falls as a cosine, a bound on the
gradient's norm, and averaged weights.

Muon (K. Jordan et al., 2024) moves the matrices of hidden layers, with steps as large as Adam's,
and Adam all else. A step whose loss or gradient is not finite is left out. Training is a function
of the losses, the settings and the seed; with a limit of time it ends early, so it depends on the
machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from campaign.errors import InputError

_HIDDEN = 16
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Schedule:
    """``seconds``: of the process's own time, after which training ends; the rate falls with what
    is used of the steps or of the time.
    """

    steps: int
    rate: float = 1e-3
    warm_up: float = 0.05
    gradient_norm: float = 1.0
    averaging: float = 0.999
    seconds: float = math.inf
    with_muon: bool = False


@dataclass(frozen=True)
class Progress:
    step: int
    steps: int
    loss: float


def optimise(
    model: nn.Module,
    loss: Callable[[], Tensor],
    schedule: Schedule,
    progress: Callable[[Progress], None] | None = None,
) -> Mapping[str, float]:
    """Leaves the averaged weights in the model. Raises InputError where more than half of the steps
    cannot be taken.
    """
    optimisers = _optimisers(model, schedule)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    began, mean, failed, step = time.process_time(), math.nan, 0, 0
    model.train()
    for step in range(1, schedule.steps + 1):
        done = max(step / schedule.steps, (time.process_time() - began) / schedule.seconds)
        if done > 1:
            break
        for group in (group for optimiser in optimisers for group in optimiser.param_groups):
            group["lr"] = (
                schedule.rate
                * min(1.0, done / schedule.warm_up)
                * 0.5
                * (1 + math.cos(math.pi * done))
            )
        value = loss()
        for optimiser in optimisers:
            optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), schedule.gradient_norm)
        if not (torch.isfinite(norm) and torch.isfinite(value)):
            failed += 1
            if failed > 10 and failed > step / 2:
                raise InputError(
                    "training does not stay finite", hint="check the data, or lower the rate"
                )
            continue
        for optimiser in optimisers:
            optimiser.step()
        decay = min(schedule.averaging, (1 + step) / (10 + step))
        for name, weight in model.state_dict().items():
            if weight.is_floating_point():
                average[name].lerp_(weight, 1 - decay)
            else:
                average[name].copy_(weight)
        now = float(value.detach())
        mean = now if math.isnan(mean) else 0.98 * mean + 0.02 * now
        if progress is not None:
            progress(Progress(step, schedule.steps, mean))
    model.load_state_dict(average)
    model.eval()
    return {"training_loss": mean, "steps": float(step), "steps_left_out": float(failed)}


def on_device(model: Network, device: str) -> Network:
    """The model, moved there. Raises InputError where a GPU is asked for and there is none."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f"device: {device} needs a GPU that PyTorch sees, and there is none",
            hint="take device: cpu; ask `oreloop doctor`",
        )
    return model.to(device)


def _optimisers(model: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hidden = (
        [
            parameter
            for parameter in parameters
            if parameter.ndim == 2 and min(parameter.shape) >= _HIDDEN
        ]
        if schedule.with_muon
        else []
    )
    chosen = {id(parameter) for parameter in hidden}
    found: list[torch.optim.Optimizer] = [
        torch.optim.Adam([p for p in parameters if id(p) not in chosen], lr=schedule.rate)
    ]
    if hidden:
        found.append(
            torch.optim.Muon(
                hidden, lr=schedule.rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
            )
        )
    return found
