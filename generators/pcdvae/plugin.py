"""The generator ``pcdvae``: learns from the labelled crystals, and proposes from its prior and by
property optimisation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from ase.data import atomic_numbers
from pydantic import Field, field_validator
from torch import Tensor

from campaign.errors import InputError
from campaign.parameters import Former, Formers, Parameters, WeightsPath
from campaign.protocols import GenerationContext
from campaign.types import Checkpoint, Crystal, LabelledCandidate, Objective, Proposal
from campaign.units import Standard
from generators.metrics import generation, phase_share
from generators.networks.checkpoints import Starting
from generators.networks.training import on_device
from generators.pcdvae.data import NEIGHBOURHOODS, check_phases, examples_of
from generators.pcdvae.embedder import check_elements
from generators.pcdvae.model import PCDVAE, Preset, elements_known
from generators.pcdvae.optimise import (
    Held,
    Merit,
    Plain,
    Prior,
    ascend,
    conditions,
    encode,
    fit_ensemble,
)
from generators.pcdvae.sample import (
    Focused,
    Langevin,
    Near,
    Sampler,
    in_reduced_precision,
    sample,
)
from generators.pcdvae.store import Tables, from_checkpoint, hash_of, tables_of, to_checkpoint
from generators.pcdvae.templates import Templates
from generators.pcdvae.train import (
    Epoch,
    Example,
    TrainingSettings,
    shape_of,
    split_by_composition,
    train,
)

log = logging.getLogger(__name__)
_GATE = 24


class FocusedConfig(Parameters):
    use: Literal["focused"] = "focused"
    steps: int = Field(
        170, ge=1, description="Langevin steps at the levels at which crystals form."
    )
    ancestral: int = Field(20, ge=1, description="Steps that take the rest of the noise away.")

    @property
    def sampler(self) -> Sampler:
        return Focused(self.steps, self.ancestral)


class LangevinConfig(Parameters):
    use: Literal["langevin"]
    steps: int = Field(100, ge=1, description="Steps at each of the 50 noise levels.")
    rate: float = Field(
        1e-4,
        gt=0,
        description="Step size (angstrom^2) at the smallest level; it grows with the level's "
        "square.",
    )

    @property
    def sampler(self) -> Sampler:
        return Langevin(self.steps, self.rate)


class NearLabelledConfig(Parameters):
    use: Literal["near_labelled"]
    noise: float = Field(
        0.10,
        ge=0,
        description="Width of the noise that a labelled crystal's positions get, in (V/N)^(1/3).",
    )
    first: float = Field(
        0.06,
        gt=0.044,
        description="Width, in (V/N)^(1/3), at which Langevin steps begin; above 0.08 crystals "
        "melt.",
    )
    steps: int = Field(40, ge=1, description="Langevin steps.")
    ancestral: int = Field(20, ge=1, description="Steps that take the rest of the noise away.")

    @property
    def sampler(self) -> Sampler:
        return Near(self.noise, Focused(self.steps, self.ancestral, first=self.first))


class OptimisationConfig(Parameters):
    former: ClassVar[Formers] = {
        "learning_rate": Former("rate"),
        "variant": Former("form", {"held": "oreloop", "plain": "paper"}),
    }
    share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share (1) of the proposals; the others are drawn from the prior.",
    )
    starts: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Best share (1) of the labelled crystals that are encoded as starts.",
    )
    stages: tuple[int, ...] = Field(
        (200, 500, 1000, 1500, 2500),
        min_length=1,
        description="Adam steps after which vectors are decoded.",
    )
    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate.")
    variant: Literal["paper", "oreloop"] = Field(
        "oreloop",
        description="paper: the property head alone; oreloop: an ensemble on what decodes, with "
        "a prior.",
    )
    caution: float = Field(
        1.0, ge=0, description="oreloop: weight of the ensemble's standard deviation."
    )
    prior: float = Field(
        1.0,
        ge=0,
        description="oreloop: weight of a vector's distance from the labelled crystals, beyond "
        "theirs.",
    )

    @field_validator("stages")
    @classmethod
    def _rise(cls, stages: tuple[int, ...]) -> tuple[int, ...]:
        if list(stages) != sorted(set(stages)) or stages[0] < 1:
            raise ValueError(f"stages: expected numbers of steps that rise, got {list(stages)}")
        return stages


class TrainingConfig(Parameters):
    former: ClassVar[Formers] = {"learning_rate": Former("rate")}

    epochs: int = Field(
        100,
        ge=1,
        description="Maximum number of passes over the labelled crystals in each training.",
    )
    patience: int = Field(
        30, ge=1, description="Passes without a better validation loss after which training stops."
    )
    batch_size: int = Field(32, ge=1, description="Crystals per step.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate.")
    validation: float = Field(
        0.15,
        ge=0,
        lt=1,
        description="Share (1) of the crystals whose compositions are held out; of crystals of one "
        "composition alone, crystals are.",
    )

    compiled: bool = Field(
        False,
        description="Fuse layers with the machine's C++ compiler: about a tenth faster, a "
        "minute to begin.",
    )

    def settings(self, preset: Preset, reduced_precision: bool) -> TrainingSettings:
        return TrainingSettings(
            compiled=self.compiled,
            preset=preset,
            epochs=self.epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            rate=self.learning_rate,
            validation=self.validation,
            reduced_precision=reduced_precision,
        )


class PCDVAEConfig(Parameters):
    former: ClassVar[Formers] = {
        "min_labels": Former("least_labels"),
    }

    preset: Preset = Field(
        "small", description="Sizes of the network: the paper's, or small ones for CPUs."
    )
    phases: tuple[str, ...] = Field(
        ("fcc", "bcc"),
        description="Phases told apart: fcc, hcp, bcc, other; or crystal systems. None or one: "
        "plain CDVAE.",
    )
    weights: WeightsPath | None = Field(
        None,
        description="File that `oreloop train pcdvae` wrote, or models:/NAME@ALIAS, to start from.",
    )
    max_atoms: int | None = Field(
        None,
        ge=1,
        description="Maximum number of atoms in a cell; the largest labelled one by default.",
    )
    min_labels: int = Field(50, ge=2, description="Labelled crystals before it is first trained.")
    training: TrainingConfig = TrainingConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    prior: Literal["labelled", "normal"] = Field(
        "labelled",
        description="Latent vectors are drawn around the labelled crystals of each phase, or "
        "from a standard normal.",
    )
    sampler: Annotated[
        FocusedConfig | LangevinConfig | NearLabelledConfig, Field(discriminator="use")
    ] = Field(
        FocusedConfig(),
        description="focused and langevin begin with uniform positions; near_labelled with a "
        "labelled crystal of the predicted phase and size in the predicted cell, its elements in "
        "new order, as large cells need.",
    )
    reduced_precision: bool = Field(
        True, description="bfloat16 in the matrix products of training and of sampling."
    )
    device: Literal["cpu", "cuda"] = "cpu"

    @field_validator("phases")
    @classmethod
    def _of_one_kind(cls, phases: tuple[str, ...]) -> tuple[str, ...]:
        check_phases(phases)
        return phases


@dataclass(frozen=True)
class _Encoded:
    """The labelled crystals in latent space: means and deviations (n, d), phases (n,), gains (n,)
    and candidates' ids.
    """

    mean: Tensor
    deviation: Tensor
    phase: Tensor
    gain: Tensor
    ids: list[str]


class PCDVAEGenerator(Starting):
    Config = PCDVAEConfig
    config: PCDVAEConfig

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        """None before there are weights; of ``n`` samples those inside the search space.

        Raises InputError on elements or sizes that the weights do not know.
        """
        checkpoint = self._checkpoint(context)
        if checkpoint is None:
            return
        model, tables = from_checkpoint(checkpoint)
        check_elements(context.space.elements, tables)
        model.known &= elements_known(
            [atomic_numbers[element] for element in context.space.elements]
        )
        model = on_device(model, self.config.device)
        torch.manual_seed(int(rng.integers(2**31)))
        encoded = self._encoded(model, context)
        n_optimised = round(self.config.optimisation.share * n) if encoded is not None else 0
        decoder = in_reduced_precision(model) if self.config.reduced_precision else model
        templates = self._templates(lambda: self._examples(context.labelled, context))
        n_outside = 0
        for latent, proposals in self._latents(
            model, encoded, n - n_optimised, n_optimised, rng, context.objective
        ):
            made = sample(decoder, latent, self.config.sampler.sampler, templates=templates)
            for crystal, proposal in zip(made, proposals, strict=True):
                if context.space.violation(crystal.symbols):
                    n_outside += 1
                else:
                    yield crystal, proposal
        if n_outside:
            log.info(
                "of %d samples %d have compositions outside the search space and are left out",
                n,
                n_outside,
            )

    def _encoded(self, model: PCDVAE, context: GenerationContext) -> _Encoded | None:
        quantity = context.objective.quantity
        known = [item for item in context.labelled if quantity in item.values]
        known = [item for item in known if len(item.candidate.crystal) <= model.shape.max_atoms]
        if len(known) < 2:
            return None
        crystals = [item.relaxed or item.candidate.crystal for item in known]
        mean, deviation = encode(model, crystals)
        gain = torch.tensor(
            [float(context.objective.gain(item.values[quantity])) for item in known],
            device=mean.device,
        )
        return _Encoded(
            mean,
            deviation,
            model.predicted_phase(mean),
            gain,
            [item.candidate.id for item in known],
        )

    def _latents(
        self,
        model: PCDVAE,
        encoded: _Encoded | None,
        n_drawn: int,
        n_optimised: int,
        rng: np.random.Generator,
        objective: Objective,
    ) -> Iterator[tuple[Tensor, list[Proposal]]]:
        prior = (
            Prior.of(encoded.mean, encoded.deviation, encoded.phase)
            if encoded is not None
            else None
        )
        if n_drawn:
            if self.config.prior == "labelled" and prior is not None:
                drawn = prior.draw(n_drawn)
            else:
                drawn = torch.randn(n_drawn, model.sizes.latent, device=model.lattice_mean.device)
            yield drawn, [Proposal(condition={"from": "prior"})] * n_drawn
        if n_optimised and encoded is not None and prior is not None:
            settings = self.config.optimisation
            best = torch.argsort(encoded.gain, descending=True)[
                : max(1, round(settings.starts * len(encoded.ids)))
            ]
            stages = rng.permutation(np.resize(settings.stages, n_optimised))
            rows = best[torch.as_tensor(rng.integers(len(best), size=n_optimised))]
            merit = self._merit(model, encoded, prior, objective)
            for stage, latent in ascend(
                merit, encoded.mean[rows], sorted(set(stages.tolist())), settings.learning_rate
            ):
                mine = np.flatnonzero(stages == stage)
                condition = {"from": "optimisation", "steps": int(stage)}
                yield (
                    latent[mine],
                    [
                        Proposal(parents=(encoded.ids[int(rows[i])],), condition=condition)
                        for i in mine
                    ],
                )

    def _merit(self, model: PCDVAE, encoded: _Encoded, prior: Prior, objective: Objective) -> Merit:
        settings = self.config.optimisation
        if settings.variant == "paper":
            if objective.direction == "match":
                raise InputError(
                    "optimisation: form plain makes a property large or small",
                    hint="set form: held to match a value",
                )
            return Plain(model, sign=1.0 if objective.direction == "maximize" else -1.0)
        unit = Standard.of(encoded.gain.numpy())
        standard = (encoded.gain - unit.center) / unit.spread
        with torch.no_grad():
            known = conditions(model, encoded.mean)
        return Held(model, fit_ensemble(known, standard), prior, settings.caution, settings.prior)

    def is_ready(self, labelled: Sequence[LabelledCandidate]) -> bool:
        return len(labelled) >= self.config.min_labels

    def train(
        self,
        labelled: Sequence[LabelledCandidate],
        *,
        rng: np.random.Generator,
        context: GenerationContext,
        progress: Callable[[int, int, str], None] | None = None,
        keep: Callable[[Checkpoint], None] | None = None,
        begun: Checkpoint | None = None,
    ) -> Checkpoint:
        """From the last weights where there are any; anew where cells have come that are larger
        than those know.

        ``keep`` is given the state after each epoch, from which ``begun`` goes on.

        Raises InputError on fewer than two labels, and on cells above ``max_atoms`` or above what
        the config's weights know.
        """
        examples = self._examples(labelled, context)
        old = self._checkpoint(context)
        start, start_tables = from_checkpoint(old) if old is not None else (None, None)
        largest = _largest(examples)
        if start is not None and context.checkpoint is not None and start.shape.max_atoms < largest:
            log.info(
                "cells of %d atoms have come, the last weights know %d: trained anew",
                largest,
                start.shape.max_atoms,
            )
            start = None
        settings = self.config.training.settings(self.config.preset, self.config.reduced_precision)
        shape = (
            shape_of(examples, len(self.config.phases), self.config.max_atoms)
            if len(examples) > 1
            else None
        )
        seed = int(rng.integers(2**31))

        def told(epoch: Epoch) -> None:
            _told(epoch)
            if progress is not None:
                progress(
                    epoch.index,
                    epoch.epochs,
                    f"loss {epoch.training:.3f}, validation {epoch.validation:.3f}",
                )

        trained = train(
            examples,
            settings,
            seed=seed,
            shape=shape,
            start=start,
            progress=told,
            resume=begun,
            keep=keep,
            device=self.config.device,
        )
        tables = tables_of(examples, self.config.phases, [context.objective.quantity])
        if start_tables is not None:
            known = set(start_tables.elements) | set(tables.elements)
            tables = replace(tables, elements=tuple(sorted(known)))
        return to_checkpoint(trained.model.cpu(), tables, hash_of(examples), trained.metrics)

    def is_improvement(
        self,
        new: Checkpoint,
        old: Checkpoint | None,
        labelled: Sequence[LabelledCandidate],
        *,
        context: GenerationContext,
    ) -> tuple[bool, Mapping[str, float]]:
        """Whether valid + unique + phase fidelity - relative error of the property rose, on
        held-out crystals decoded again.
        """
        examples = self._examples(labelled, context)
        learned, held = split_by_composition(
            [example.crystal for example in examples], self.config.training.validation
        )
        judged = [examples[row] for row in held] or examples
        templates = self._templates(lambda: [examples[row] for row in learned])
        after = self._figures(*from_checkpoint(new), judged, templates)
        if old is None:
            return True, after
        model, tables = from_checkpoint(old)
        if model.shape.max_atoms < _largest(judged):
            return True, after
        before = self._figures(model, tables, judged, templates)
        figures = after | {f"{name}_before": value for name, value in before.items()}
        return _merit_of(after) >= _merit_of(before), figures

    def _figures(
        self,
        model: PCDVAE,
        tables: Tables,
        examples: Sequence[Example],
        templates: Templates | None,
    ) -> dict[str, float]:
        mean, _ = encode(model, [example.crystal for example in examples])
        error = model.properties(mean)[:, 0].detach() - torch.tensor(
            [example.properties[0] for example in examples]
        )
        chosen = list(range(0, len(examples), max(1, len(examples) // _GATE)))[:_GATE]
        counts = torch.tensor([len(examples[row].crystal) for row in chosen])
        crystals = sample(
            in_reduced_precision(model),
            mean[chosen],
            self.config.sampler.sampler,
            counts=counts,
            templates=templates,
        )
        quality = generation(crystals)
        figures = {
            "valid": quality["valid"],
            "unique": quality["unique"],
            "property_error": float((error**2).mean().sqrt()),
        }
        figures["relative_error"] = figures["property_error"] / float(model.property_deviation[0])
        if len(tables.phases) > 1 and set(tables.phases) <= set(NEIGHBOURHOODS):
            wanted = [tables.phases[examples[row].phase] for row in chosen]
            figures["phase_fidelity"] = float(
                np.mean([phase_share(*pair) for pair in zip(crystals, wanted, strict=True)])
            )
        return figures

    def _templates(self, examples: Callable[[], Sequence[Example]]) -> Templates | None:
        """What crystals begin from, where the sampler wants it."""
        if self.config.sampler.use != "near_labelled":
            return None
        known = examples()
        return Templates.of(
            [example.crystal for example in known], [example.phase for example in known]
        )

    def _examples(
        self, labelled: Sequence[LabelledCandidate], context: GenerationContext
    ) -> list[Example]:
        return examples_of(labelled, [context.objective.quantity], self.config.phases)


def _largest(examples: Sequence[Example]) -> int:
    return max((len(example.crystal) for example in examples), default=0)


def _merit_of(figures: Mapping[str, float]) -> float:
    return (
        figures["valid"]
        + figures["unique"]
        + figures.get("phase_fidelity", 0.0)
        - figures["relative_error"]
    )


def _told(epoch: Epoch) -> None:
    if epoch.index % 10 == 0:
        log.info(
            "epoch %d of %d: training %.3f, validation %.3f",
            epoch.index,
            epoch.epochs,
            epoch.training,
            epoch.validation,
        )
