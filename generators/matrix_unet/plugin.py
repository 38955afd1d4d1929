"""The generators ``flow_matching``, ``diffusion`` and ``regression_modifier``: crystals under a
formula, a space group and an energy.

Each learns from the campaign's labelled polymorphs. The first two generate; the third takes the
best unstable crystals and asks for a lower energy. Samples whose atoms stand too close, or whose
volume cannot be, are left out before the screens see them, and counted.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, model_validator

from campaign.errors import InputError
from campaign.parameters import Former, Formers, Parameters, WeightsPath, Window
from campaign.protocols import GenerationContext
from campaign.types import (
    ENERGY_PER_ATOM,
    FORMATION_ENERGY,
    Checkpoint,
    Crystal,
    LabelledCandidate,
    Proposal,
)
from generators.matrix_unet.choice import SiteChoice
from generators.matrix_unet.losses import CoordinateLoss
from generators.matrix_unet.model import Design, MatrixModel, Noise, Sampler
from generators.matrix_unet.sample import Way, generate, is_possible, modify
from generators.matrix_unet.store import from_checkpoint, to_checkpoint
from generators.matrix_unet.symmetric_flow import SymmetricFlow, draw_paths, losses
from generators.matrix_unet.train import (
    MATRIX_RATE,
    PAIRS_PER_BATCH,
    SYMMETRIC_RATE,
    Trained,
    matrix_loss,
    train_matrix,
    train_symmetric,
)
from generators.matrix_unet.unet import Preset
from generators.matrix_unet.wanted import WantedConfig, draw
from generators.networks.checkpoints import Starting
from generators.networks.periodic import PeriodicSizes
from generators.networks.training import Progress, Schedule, on_device
from generators.polymorphs import PolymorphDataset, polymorphs_of_labelled, tenth_of

log = logging.getLogger(__name__)
_VALIDATED = 128


class TrainingConfig(Parameters):
    former: ClassVar[Formers] = {"learning_rate": Former("rate")}

    steps: int = Field(
        4000,
        ge=1,
        description="Steps of each training; about 20 a second on one core for cells of up to "
        "8 atoms.",
    )
    again: int = Field(
        1000, ge=1, description="Steps of a training that goes on from earlier weights."
    )
    learning_rate: float | None = Field(
        None, gt=0, description="Maximum learning rate; by the architecture where absent."
    )
    averaging: float = Field(
        0.999,
        gt=0,
        lt=1,
        description="Weight (1) of the past in the running mean of the network's weights.",
    )
    pairs: int = Field(
        PAIRS_PER_BATCH, ge=100, description="equivariant: pairs of atoms in a batch, about."
    )


class NetworkConfig(Parameters):
    width: int = Field(96, ge=8, description="Features of an atom.")
    layers: int = Field(4, ge=1, description="Rounds of message passing.")


class ConditionalConfig(Parameters):
    """What the three generators share."""

    former: ClassVar[Formers] = {
        "min_labels": Former("least_labels"),
        "min_distance": Former("least_distance"),
    }

    weights: WeightsPath | None = Field(
        None,
        description="File that `oreloop train flow` wrote, or models:/NAME@ALIAS, to start from.",
    )
    preset: Preset = Field(
        "small", description="Sizes of the matrix UNet: the paper's, or small ones for CPUs."
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="Where the network learns and samples."
    )
    min_labels: int = Field(100, ge=4, description="Labelled crystals before it is first trained.")
    training: TrainingConfig = TrainingConfig()
    steps: int = Field(
        20, ge=1, description="Steps of the sampler, one or two calls of the network each."
    )
    min_distance: float = Field(
        1.0, gt=0, description="Shortest distance between atoms (angstrom) of what is proposed."
    )
    volume_per_atom: Window = Field(
        (4.0, 60.0), description="Minimum and maximum volume per atom (angstrom^3) proposed."
    )


class FlowMatchingConfig(ConditionalConfig):
    former: ClassVar[Formers] = {
        "variant": Former("form", {"faithful": "paper", "better": "oreloop"}),
        "starts": Former("candidates"),
    }

    architecture: Literal["equivariant", "matrix"] = Field(
        "equivariant",
        description="Message passing between random symmetric crystals and known ones, or the "
        "UNet on the matrix form.",
    )
    network: NetworkConfig = Field(
        NetworkConfig(),
        description="equivariant: sizes of the network, where training begins anew.",
    )
    variant: Literal["paper", "oreloop"] = Field(
        "oreloop", description="matrix: the paper's form, or one that learns faster."
    )
    noise: Noise = Field(
        "uniform", description="matrix, paper: the noise that the flow starts from."
    )
    guidance: float = Field(
        1.0, ge=0, description="Weight (1) of the energy against no energy; above 1 goes further."
    )
    starts: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="equivariant: starts drawn for each sample, of which one is taken by the "
        "energy that it is expected to end at; auto: as many as sites are in play (e to the power "
        "of the entropy of their choice), 1 where the asked space group has known prototypes that "
        "fit, up to 16 where it has none.",
    )
    exploration: float = Field(
        0.1,
        ge=0,
        le=1,
        description="equivariant: share (1) of samples on sites that no labelled crystal has; "
        "1 for new prototypes alone.",
    )
    repetition: float = Field(
        0.1,
        gt=0,
        le=1,
        description="equivariant: factor (1) on the chance of sites for each sample of the "
        "formula that had them in the same round.",
    )
    recall: float = Field(
        0.9,
        ge=0,
        le=1,
        description="equivariant: share (1) of starts that are near a labelled crystal with "
        "the same sites, if there is one.",
    )
    recall_time: float = Field(
        0.95, ge=0, lt=1, description="equivariant: time (1) on the path at which those begin."
    )
    wanted: WantedConfig = WantedConfig()


class DiffusionConfig(ConditionalConfig):
    sampler: Literal["ddpm", "ddim"] = Field(
        "ddim", description="Ancestral steps, or deterministic ones."
    )
    steps: int = Field(100, ge=1, description="Steps of the sampler.")
    wanted: WantedConfig = WantedConfig()


class ModifierConfig(ConditionalConfig):
    method: Literal["regression", "diffusion", "flow"] = Field(
        "regression", description="Which of the paper's models modifies."
    )
    coordinate_loss: CoordinateLoss = Field(
        "periodic",
        description="regression: the paper's loss at the cell's borders, over 26 images, by "
        "coordinate, or without periodicity.",
    )
    starts: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Best share (1) of the unstable labelled crystals that are modified.",
    )
    lower_by: Window = Field(
        (0.02, 0.3), description="Minimum and maximum energy (eV/atom) by which the wish is lower."
    )

    @model_validator(mode="after")
    def _ordered(self) -> ModifierConfig:
        if not 0 < self.lower_by[0] <= self.lower_by[1]:
            raise ValueError(
                "lower_by: expected two energies above 0, the smaller first, got "
                f"{list(self.lower_by)}"
            )
        return self


class Conditional(Starting, ABC):
    """Training on labelled polymorphs, and the gate by the loss on formulas held out."""

    config: ConditionalConfig

    @property
    @abstractmethod
    def design(self) -> Design | None:
        """Of the matrix model; None for the equivariant one."""

    @property
    def sizes(self) -> PeriodicSizes:
        """Of the equivariant model."""
        return PeriodicSizes()

    def is_ready(self, labelled: Sequence[LabelledCandidate]) -> bool:
        return len(labelled) >= self.config.min_labels

    def train(
        self,
        labelled: Sequence[LabelledCandidate],
        *,
        rng: np.random.Generator,
        context: GenerationContext,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Checkpoint:
        """From the last weights where there are any. Raises InputError on too few polymorphs."""
        data = _enough(self._data(labelled))
        old = self._checkpoint(context)
        start = self._model(old)[0] if old is not None else None
        learned, held = _split(data)
        seed = int(rng.integers(2**31))
        settings = self.config.training

        def told(at: Progress) -> None:
            _told(at)
            if progress is not None:
                progress(at.step, at.steps, f"loss {at.loss:.3f}")

        steps = settings.again if start is not None else settings.steps
        if self.design is None:
            schedule = Schedule(
                steps,
                settings.learning_rate or SYMMETRIC_RATE,
                averaging=settings.averaging,
                with_muon=True,
            )
            begun = start if isinstance(start, SymmetricFlow) else None
            trained = train_symmetric(
                learned,
                schedule,
                seed=seed,
                start=begun,
                sizes=self.sizes,
                pairs=settings.pairs,
                progress=told,
                device=self.config.device,
            )
        else:
            schedule = Schedule(
                steps, settings.learning_rate or MATRIX_RATE, averaging=settings.averaging
            )
            before = start if isinstance(start, MatrixModel) else None
            trained = train_matrix(
                learned,
                self.design,
                schedule,
                seed=seed,
                start=before,
                progress=told,
                device=self.config.device,
            )
        trained = replace(trained, choice=SiteChoice.fit(data, rng))
        return to_checkpoint(trained, data.key, {"validation_loss": validation_loss(trained, held)})

    def is_improvement(
        self,
        new: Checkpoint,
        old: Checkpoint | None,
        labelled: Sequence[LabelledCandidate],
        *,
        context: GenerationContext,
    ) -> tuple[bool, Mapping[str, float]]:
        """Whether the loss on held-out formulas, with the same noise, fell."""
        _, held = _split(_enough(self._data(labelled)))
        after = {"validation_loss": validation_loss(Trained(*self._model(new), {}), held)}
        if old is None:
            return True, after
        before = validation_loss(Trained(*self._model(old), {}), held)
        return after["validation_loss"] <= before, after | {"validation_loss_before": before}

    def _data(self, labelled: Sequence[LabelledCandidate]) -> PolymorphDataset:
        has_formation = any(FORMATION_ENERGY.name in item.values for item in labelled)
        return polymorphs_of_labelled(
            labelled, FORMATION_ENERGY.name if has_formation else ENERGY_PER_ATOM.name
        )

    def _model(self, checkpoint: Checkpoint) -> tuple[MatrixModel | SymmetricFlow, SiteChoice]:
        model, choice = from_checkpoint(checkpoint)
        found = model.design if isinstance(model, MatrixModel) else None
        if found != self.design:
            raise InputError(
                f"the weights are of {found or 'the equivariant flow'}, but the config asks "
                f"for {self.design or 'that'}"
            )
        return on_device(model, self.config.device), choice

    def _possible(
        self, made: Iterator[tuple[Crystal | None, Proposal]]
    ) -> Iterator[tuple[Crystal, Proposal]]:
        lost = Counter[str]()
        kept = 0
        for crystal, proposal in made:
            why = (
                "no cell"
                if crystal is None
                else is_possible(crystal, self.config.min_distance, self.config.volume_per_atom)
            )
            if crystal is None or why:
                lost[why] += 1
            else:
                kept += 1
                yield crystal, proposal
        if lost:
            reasons = ", ".join(f"{count} {why}" for why, count in sorted(lost.items()))
            log.info(
                "of %d samples %d are possible; left out: %s", kept + lost.total(), kept, reasons
            )


class _Generating(Conditional):
    config: FlowMatchingConfig | DiffusionConfig

    @property
    @abstractmethod
    def way(self) -> Way:
        """How samples are taken."""

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        """None before there are weights. Raises InputError where a formula fits none of the space
        groups.
        """
        checkpoint = self._checkpoint(context)
        if checkpoint is None:
            return
        model, choice = self._model(checkpoint)
        data = self._data(context.labelled) if context.labelled else PolymorphDataset([])
        wanted = draw(
            self.config.wanted,
            n,
            data,
            context.space,
            rng,
            done=context.asked,
        )
        made = (
            (
                sample.crystal,
                Proposal(
                    condition={
                        "formula": str(sample.wanted.formula),
                        "space_group": sample.space_group,
                        "energy": round(sample.wanted.energy, 6),
                    }
                ),
            )
            for sample in generate(model, choice, wanted, self.way, rng, data)
        )
        yield from self._possible(made)


class FlowMatching(_Generating):
    Config: ClassVar[type[BaseModel]] = FlowMatchingConfig

    config: FlowMatchingConfig

    @property
    def design(self) -> Design | None:
        config = self.config
        return (
            None
            if config.architecture == "equivariant"
            else Design("flow", False, config.noise, config.variant, config.preset)
        )

    @property
    def sizes(self) -> PeriodicSizes:
        return PeriodicSizes(self.config.network.width, self.config.network.layers)

    @property
    def way(self) -> Way:
        config = self.config
        return Way(
            config.steps,
            "euler",
            config.guidance,
            None if config.starts == "auto" else config.starts,
            config.exploration,
            config.repetition,
            config.recall,
            config.recall_time,
        )


class Diffusion(_Generating):
    Config: ClassVar[type[BaseModel]] = DiffusionConfig

    config: DiffusionConfig

    @property
    def design(self) -> Design | None:
        return Design("diffusion", preset=self.config.preset)

    @property
    def way(self) -> Way:
        sampler: Sampler = self.config.sampler
        return Way(self.config.steps, sampler)


class RegressionModifier(Conditional):
    Config: ClassVar[type[BaseModel]] = ModifierConfig

    config: ModifierConfig

    @property
    def design(self) -> Design | None:
        config = self.config
        return Design(
            config.method,
            modifies=True,
            preset=config.preset,
            coordinate_loss=config.coordinate_loss,
        )

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        """None before there are weights, or where no labelled crystal is above another one of its
        formula.
        """
        checkpoint = self._checkpoint(context)
        if checkpoint is None or not context.labelled:
            return
        model, _ = self._model(checkpoint)
        assert isinstance(model, MatrixModel)
        data = self._data(context.labelled)
        above = [row for rows in data.groups.values() for row in rows[1:]]
        if not above:
            return
        lowest = {row: data.items[rows[0]].energy for rows in data.groups.values() for row in rows}
        above.sort(key=lambda row: data.items[row].energy - lowest[row])
        best = above[: max(1, math.ceil(self.config.starts * len(above)))]
        rows = [best[int(k)] for k in rng.integers(len(best), size=n)]
        groups = np.array([item.cell.space_group for item in data.items])
        wanted = [int(groups[rng.integers(len(groups))]) for _ in rows]
        lower = [-float(value) for value in rng.uniform(*self.config.lower_by, size=n)]
        seed = int(rng.integers(2**31))
        crystals = modify(
            model,
            [data.items[row].crystal for row in rows],
            wanted,
            lower,
            Way(self.config.steps),
            seed=seed,
        )
        proposals = (
            Proposal(
                parents=(data.items[row].source,),
                condition={"space_group": group, "energy_change": round(change, 6)},
            )
            for row, group, change in zip(rows, wanted, lower, strict=True)
        )
        yield from self._possible(zip(crystals, proposals, strict=True))


def _enough(data: PolymorphDataset) -> PolymorphDataset:
    """To learn from. Raises InputError."""
    if len(data.groups) < 2:
        raise InputError(
            f"expected labelled crystals of at least two formulas with {FORMATION_ENERGY.name} "
            f"or {ENERGY_PER_ATOM.name}, "
            f"got {len(data.groups)}",
            hint="label more crystals first: raise min_labels",
        )
    return data


def _split(data: PolymorphDataset) -> tuple[PolymorphDataset, PolymorphDataset]:
    """About a tenth of the formulas is held out, always the same."""
    held = [formula for formula in data.groups if tenth_of(formula) == 0] or [
        min(data.groups, key=tenth_of)
    ]
    if len(held) == len(data.groups):
        held = held[:-1]
    rows = {row for formula in held for row in data.groups[formula]}
    return data.subset([row for row in range(len(data)) if row not in rows]), data.subset(
        sorted(rows)
    )


@torch.no_grad()
def validation_loss(trained: Trained, held: PolymorphDataset) -> float:
    """With the same noise at each call. Not a number where a modifier has no pairs to be judged
    by.
    """
    rng = np.random.default_rng(0)
    model = trained.model
    rows = rng.permutation(len(held))[:_VALIDATED]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if isinstance(model, MatrixModel):
            return matrix_loss(model, held.subset(rows.tolist()), rng)
        items = [held.items[row] for row in rows]
        paths = draw_paths([item.cell for item in items], model, rng)
        energy = torch.tensor([item.energy for item in items], dtype=torch.float32)
        of_atoms, of_cell, _ = losses(model, paths, energy, energy)
        return float(of_atoms + of_cell)


def _told(progress: Progress) -> None:
    if progress.step % 500 == 0:
        log.info("step %d of %d: loss %.3f", progress.step, progress.steps, progress.loss)
