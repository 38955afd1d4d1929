"""Training of P-CDVAE: Adam with a rate that falls on plateaus, averaged weights, a validation
split by composition, and early stopping.

A loss that is not finite, or an epoch far above the best one, sends training back to its last good
weights with half the rate. Training is a function of the examples, the settings and the seed; what
an interrupted one saved after an epoch lets it go on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from campaign.errors import InputError
from campaign.types import Checkpoint, Crystal, FloatArray
from campaign.units import Standard
from generators.networks.graph import batch_of
from generators.networks.layers import observing
from generators.networks.training import on_device
from generators.pcdvae.losses import Targets, Weights, losses, total
from generators.pcdvae.model import PCDVAE, Noise, Preset, Shape, cell_parameters, elements_known

log = logging.getLogger(__name__)
JUMP, MOST_RETURNS = 5.0, 12
INTERRUPTED = "pcdvae in training"


@dataclass(frozen=True)
class Example:
    """A crystal with its properties (p,), not a number where one is not known, and the index of its
    phase.
    """

    crystal: Crystal
    properties: FloatArray
    phase: int = 0


@dataclass(frozen=True)
class TrainingSettings:
    preset: Preset = "small"
    epochs: int = 300
    batch_size: int = 64
    rate: float = 1e-3
    rate_factor: float = 0.6
    rate_patience: int = 30
    least_rate: float = 1e-4
    gradient_limit: float = 0.5
    averaging: float = 0.995
    patience: int = 100
    validation: float = 0.15
    reduced_precision: bool = False
    compiled: bool = False
    weights: Weights = field(default_factory=Weights)
    noise: Noise = field(default_factory=Noise)


@dataclass(frozen=True)
class Epoch:
    """What an epoch brought; losses are weighted sums."""

    index: int
    epochs: int
    training: float
    validation: float
    rate: float


@dataclass(frozen=True)
class Trained:
    model: PCDVAE
    metrics: Mapping[str, float]


def _composition(crystal: Crystal) -> str:
    """Atomic fractions by atomic number."""
    numbers, counts = np.unique(crystal.numbers, return_counts=True)
    return ",".join(
        f"{z}:{count / len(crystal):.4f}" for z, count in zip(numbers, counts, strict=True)
    )


def split_by_composition(crystals: Sequence[Crystal], share: float) -> tuple[list[int], list[int]]:
    """Rows to learn from and to validate on; no composition is in both, and at least one is learned
    from. Where there is one composition alone, no crystal is in both.

    What is held out is so in the order of a hash, so that more data moves little from one side to
    the other.
    """
    names = [_composition(crystal) for crystal in crystals]
    if len(set(names)) == 1:
        names = [crystal.id for crystal in crystals]
    groups: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        groups[hashlib.sha256(name.encode()).hexdigest()].append(row)
    held: list[int] = []
    for key in sorted(groups)[:-1]:
        if len(held) >= share * len(crystals):
            break
        held += groups[key]
    return sorted(set(range(len(crystals))) - set(held)), sorted(held)


def train(
    examples: Sequence[Example],
    settings: TrainingSettings,
    *,
    seed: int,
    shape: Shape | None = None,
    start: PCDVAE | None = None,
    resume: Checkpoint | None = None,
    keep: Callable[[Checkpoint], None] | None = None,
    progress: Callable[[Epoch], None] | None = None,
    device: str = "cpu",
) -> Trained:
    """The network with the averaged weights of the best epoch by validation.

    ``start``: an earlier network to go on from, with its scales. ``keep`` is given the state after
    each epoch, from which ``resume`` goes on. Raises InputError on fewer than two examples or where
    training cannot be kept finite.
    """
    if len(examples) < 2:
        raise InputError(
            f"expected at least two labelled crystals to train on, got {len(examples)}"
        )
    torch.manual_seed(seed)
    learned, held = split_by_composition(
        [example.crystal for example in examples], settings.validation
    )
    if start is None:
        shape = shape or shape_of(examples, max(example.phase for example in examples) + 1)
        model = on_device(PCDVAE(settings.preset, shape, settings.noise), device)
        _standardise(model, [examples[row] for row in learned])
    else:
        model = on_device(_check_start(start, examples), device)
        model.known |= _elements(examples).to(device)
    run = _Run(model, examples, settings, device)
    if start is None:
        run.fit_scales(learned[: settings.batch_size])
    if settings.compiled:
        model.compile_layers()
    begin = run.load(resume) if resume is not None else 0
    for index in range(begin, settings.epochs):
        training = run.epoch(rng_of(seed, index).permutation(learned).tolist(), seed, index)
        validation = run.validate(held or learned)
        run.keep_best(validation, index)
        if progress is not None:
            progress(Epoch(index + 1, settings.epochs, training, validation, run.rate))
        if keep is not None:
            keep(run.save(index + 1))
        if index - run.best_index >= settings.patience:
            break
    return run.result()


def rng_of(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch])


def shape_of(examples: Sequence[Example], n_phases: int, max_atoms: int | None = None) -> Shape:
    """The largest cell of the examples by default. Raises InputError where one is larger than asked
    for.
    """
    largest = max(len(example.crystal) for example in examples)
    if max_atoms is not None and largest > max_atoms:
        raise InputError(
            f"expected cells of at most {max_atoms} atoms, got one of {largest}",
            hint="raise max_atoms, or leave it out",
        )
    return Shape(max_atoms or largest, max(1, n_phases), len(examples[0].properties))


def _elements(examples: Sequence[Example]) -> Tensor:
    return elements_known(
        np.unique(np.concatenate([example.crystal.numbers for example in examples])).tolist()
    )


def _check_start(start: PCDVAE, examples: Sequence[Example]) -> PCDVAE:
    most = max(len(example.crystal) for example in examples)
    if most > start.shape.max_atoms:
        raise InputError(
            f"expected cells of at most {start.shape.max_atoms} atoms, which the weights know, "
            f"got one of {most}"
        )
    return start


@torch.no_grad()
def _standardise(model: PCDVAE, examples: Sequence[Example]) -> None:
    cells = np.array(
        [cell_parameters(example.crystal.lattice, len(example.crystal)) for example in examples]
    )
    values = np.ma.masked_invalid(np.array([example.properties for example in examples]))
    model.lattice_mean.copy_(torch.as_tensor(cells.mean(0)))
    model.lattice_deviation.copy_(torch.as_tensor(cells.std(0).clip(1e-2)))
    model.property_mean.copy_(torch.as_tensor(values.mean(0).filled(0.0)))
    model.property_deviation.copy_(
        torch.as_tensor([Standard.of(column.compressed()).spread for column in values.T])
    )
    model.known.copy_(_elements(examples))


class _Run:
    def __init__(
        self, model: PCDVAE, examples: Sequence[Example], settings: TrainingSettings, device: str
    ) -> None:
        self.model, self.settings, self.device = model, settings, device
        self.crystals = [example.crystal for example in examples]
        cells = np.array(
            [cell_parameters(crystal.lattice, len(crystal)) for crystal in self.crystals]
        )
        cell = (
            torch.as_tensor(cells, dtype=torch.float32, device=device) - model.lattice_mean
        ) / model.lattice_deviation
        properties = torch.as_tensor(
            np.array([example.properties for example in examples]),
            dtype=torch.float32,
            device=device,
        )
        properties = (properties - model.property_mean) / model.property_deviation
        self.targets = Targets(
            cell, properties, torch.tensor([example.phase for example in examples], device=device)
        )
        self.optimiser = torch.optim.Adam(
            [p for p in model.parameters() if p.requires_grad], lr=settings.rate
        )
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimiser,
            factor=settings.rate_factor,
            patience=settings.rate_patience,
            min_lr=settings.least_rate,
        )
        self.average = {name: value.clone() for name, value in model.state_dict().items()}
        self.best, self.best_index, self.best_loss, self.best_parts = (
            dict(self.average),
            0,
            math.inf,
            dict[str, float](),
        )
        self.lowest, self.returns, self.steps = math.inf, 0, 0
        self.parts: dict[str, float] = {}

    @property
    def rate(self) -> float:
        return float(self.optimiser.param_groups[0]["lr"])

    def loss(self, rows: Sequence[int]) -> dict[str, Tensor]:
        batch = batch_of([self.crystals[row] for row in rows], self.device)
        index = torch.as_tensor(np.asarray(rows), device=self.device)
        targets = Targets(
            self.targets.cell[index], self.targets.properties[index], self.targets.phase[index]
        )
        with torch.autocast(
            self.device.split(":")[0], dtype=torch.bfloat16, enabled=self.settings.reduced_precision
        ):
            return losses(self.model, batch, targets)

    @torch.no_grad()
    def fit_scales(self, rows: Sequence[int]) -> None:
        with observing(self.model.decoder):
            self.loss(rows)
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}

    def epoch(self, rows: Sequence[int], seed: int, index: int) -> float:
        """The mean loss; on one that is not finite or jumps, the last good weights come back with
        half the rate and it runs again.
        """
        while True:
            good = {name: value.clone() for name, value in self.model.state_dict().items()}
            average = {name: value.clone() for name, value in self.average.items()}
            torch.manual_seed(int(rng_of(seed, index).integers(2**31)) + self.returns)
            mean = self._pass(rows)
            if math.isfinite(mean) and mean < JUMP * self.lowest:
                self.lowest = min(self.lowest, mean)
                self.plateau.step(mean)
                return mean
            self.returns += 1
            if self.returns > MOST_RETURNS:
                raise InputError(
                    f"training stays unstable at rate {self.rate:g} (loss {mean:g}): check the "
                    "data, or lower the rate"
                )
            log.warning(
                "training loss %g after %g: back to the last good weights, rate %g",
                mean,
                self.lowest,
                self.rate / 2,
            )
            self.model.load_state_dict(good)
            self.average = average
            self.optimiser.state.clear()
            for group in self.optimiser.param_groups:
                group["lr"] /= 2

    def _pass(self, rows: Sequence[int]) -> float:
        self.model.train()
        found = []
        n_batches = max(1, math.ceil(len(rows) / self.settings.batch_size))
        for part in np.array_split(np.asarray(rows), n_batches):
            loss = total(self.loss(part.tolist()), self.settings.weights)
            value = float(loss.detach())
            if not math.isfinite(value):
                return value
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_value_(self.model.parameters(), self.settings.gradient_limit)
            self.optimiser.step()
            self._move_average()
            found.append(value)
        return float(np.mean(found))

    @torch.no_grad()
    def _move_average(self) -> None:
        self.steps += 1
        decay = min(self.settings.averaging, (1 + self.steps) / (10 + self.steps))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def validate(self, rows: Sequence[int]) -> float:
        """The weighted loss of the averaged weights, with the same noise after each epoch."""
        now = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        found: dict[str, list[float]] = defaultdict(list)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for part in np.array_split(
                np.asarray(rows), max(1, math.ceil(len(rows) / self.settings.batch_size))
            ):
                for name, value in self.loss(part.tolist()).items():
                    found[name].append(float(value))
        self.model.load_state_dict(now)
        self.parts = {name: float(np.mean(values)) for name, values in found.items()}
        return float(
            sum(getattr(self.settings.weights, name) * value for name, value in self.parts.items())
        )

    def keep_best(self, validation: float, index: int) -> None:
        if validation < self.best_loss or not math.isfinite(self.best_loss):
            self.best = {name: value.clone() for name, value in self.average.items()}
            self.best_loss, self.best_index, self.best_parts = validation, index, dict(self.parts)

    def result(self) -> Trained:
        self.model.load_state_dict(self.best)
        self.model.eval()
        metrics = {f"validation_{name}": value for name, value in self.best_parts.items()}
        metrics |= {
            "validation_loss": self.best_loss,
            "epochs": float(self.best_index + 1),
            "returns": float(self.returns),
        }
        return Trained(self.model, metrics)

    def save(self, next_epoch: int) -> Checkpoint:
        """All that the next epoch depends on."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for row, state in self.optimiser.state_dict()["state"].items():
            tensors |= {
                f"adam.{row}.{name}": torch.as_tensor(value) for name, value in state.items()
            }
        training = {
            "next_epoch": next_epoch,
            "rate": self.rate,
            "plateau": [self.plateau.best, self.plateau.num_bad_epochs],
            "best": [self.best_loss, self.best_index, self.best_parts],
            "counts": [self.lowest, self.returns, self.steps],
        }
        arrays = {name: value.cpu().numpy().copy() for name, value in tensors.items()}
        return Checkpoint(
            tensors=arrays, facts={"kind": INTERRUPTED, "training": json.dumps(training)}
        )

    def load(self, saved: Checkpoint) -> int:
        """The next epoch. Raises InputError where it is not what ``save`` gave."""
        if saved.facts.get("kind") != INTERRUPTED:
            raise InputError(
                "expected what an interrupted training saved, got kind "
                f"{saved.facts.get('kind', 'none')}"
            )
        facts: dict[str, Any] = json.loads(saved.facts["training"])
        tensors = {
            name: torch.from_numpy(np.array(value)).to(self.device)
            for name, value in saved.tensors.items()
        }

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): value
                for name, value in tensors.items()
                if name.startswith(prefix)
            }

        self.model.load_state_dict(part("model."))
        self.average, self.best = part("average."), part("best.")
        adam: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for name, value in part("adam.").items():
            row, key = name.split(".")
            adam[int(row)][key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        groups[0]["lr"] = facts["rate"]
        self.optimiser.load_state_dict({"state": dict(adam), "param_groups": groups})
        self.plateau.best, self.plateau.num_bad_epochs = facts["plateau"]
        self.best_loss, self.best_index, self.best_parts = facts["best"]
        self.lowest, self.returns, self.steps = facts["counts"]
        return int(facts["next_epoch"])
