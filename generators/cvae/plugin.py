"""The generators ``cvae``, ``tabular_vae`` and ``random_environment``: crystals by symmetry, refined towards one local environment.

The last draws cells and coordinates at random. The learned ones train on the labelled crystals of low energy that have the target's
bonds, and propose nothing before there are weights. All take the same refinement, and propose each net once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field

from campaign.checkpoints import checkpoint_from_bytes
from campaign.errors import InputError
from campaign.parameters import ConfigPath
from campaign.protocols import GenerationContext
from campaign.types import ENERGY_PER_ATOM, Checkpoint, Crystal, LabelledCandidate, Proposal
from generators.cvae.data import fitting, learnable, read_crystals
from generators.cvae.environment import Environment
from generators.cvae.free_variables import batch_of
from generators.cvae.latent import DualLevel, refine_latent
from generators.cvae.model import Form, Sizes, TabularVAE
from generators.cvae.nets import keys_of
from generators.cvae.refine import Refined, refine
from generators.cvae.settings import Frame, RefineConfig, SitesConfig, TargetConfig
from generators.cvae.sites import Condition, SiteModel, condition_of, random_condition, random_table
from generators.cvae.store import from_checkpoint, to_checkpoint
from generators.cvae.table import TabularCrystal, decode
from generators.cvae.train import TrainingSettings, sample, sample_all, train
from generators.networks.training import Progress

log = logging.getLogger(__name__)
_PART = 500
_MOST_IDLE = 3


class RandomEnvironmentConfig(Frame):
    target: TargetConfig
    sites: SitesConfig = SitesConfig()
    refine: RefineConfig = RefineConfig()


class CVAETrainingConfig(Frame):
    epochs: int = Field(250, ge=1, description="Epochs of each training.")
    batch_size: int = Field(500, ge=1, description="Crystals of a step.")
    rate: float = Field(1e-3, gt=0, description="Rate of the optimiser.")
    hidden: int = Field(1024, ge=1, description="Width of the hidden layers.")
    latent: int = Field(128, ge=1, description="Length of the latent vector.")
    components: int = Field(10, ge=1, description="Gaussians of each column's mixture.")
    descriptions: int = Field(20, ge=1, description="Equivalent descriptions of each crystal that are learned.")
    subgroups: int = Field(0, ge=0, description="Trials of describing each crystal in a subgroup, about 0.1 s each.")
    best: float = Field(0.5, gt=0, le=1, description="Share (1) of the labelled crystals, lowest energy first, that is learned.")


class TabularConfig(RandomEnvironmentConfig):
    """What the two learned ones share."""

    data: ConfigPath | None = Field(None, description="Known crystals beside the labelled ones: an ASE database, a file or a folder.")
    weights: ConfigPath | None = Field(None, description="File that `oreloop train cvae` wrote, to start from.")
    least_labels: int = Field(50, ge=10, description="Labelled crystals before it is first trained.")
    form: Form = Field("better", description="published: tanh in training, components mixed in sampling; better: neither.")
    training: CVAETrainingConfig = CVAETrainingConfig()


class LatentConfig(Frame):
    rounds: int = Field(1, ge=0, description="Rounds of latent refinement of what is not accepted, after the first pass.")
    steps: int = Field(100, ge=1, description="Steps of each, 0.1 to 0.2 ms a crystal.")
    rate: float = Field(2e-2, gt=0, description="Rate of its optimiser.")


class CVAEConfig(TabularConfig):
    conditions: Literal["data", "model", "random"] = Field(
        "model", description="Space groups and sites: those of the learned crystals, draws of a small model of those, or random ones."
    )
    latent: LatentConfig = LatentConfig()


@dataclass(frozen=True, eq=False)
class _Made:
    refined: Refined
    how: str


class RandomEnvironment:
    """Random cells and coordinates on random sites, refined."""

    Config: ClassVar[type[BaseModel]] = RandomEnvironmentConfig

    def __init__(self, config: RandomEnvironmentConfig) -> None:
        self.config: RandomEnvironmentConfig = config
        self.environment: Environment = config.target.environment()
        self.limits = config.sites.limits(self.environment)
        self.given = config.sites.conditions(self.environment)

    def generate(self, n: int, *, rng: np.random.Generator, context: GenerationContext) -> Iterator[tuple[Crystal, Proposal]]:
        """Crystals of ``n`` different nets that no labelled or awaited crystal has; fewer where three parts bring none."""
        if not self._can_generate(context):
            return
        known = set(self._nets([item.candidate.crystal for item in context.labelled] + [item.crystal for item in context.pending]))
        lost: Counter[str] = Counter()
        made, idle = 0, 0
        while idle < _MOST_IDLE:
            before = made
            for part in self._part(min(_PART, 4 * n), rng, context):
                refined = part.refined
                lost["without the target's bonds"] += int((~refined.is_valid).sum())
                lost["too far from the target, or of lower dimension"] += int((refined.is_valid & ~refined.is_accepted).sum())
                for table, loss, key in self._accepted(refined):
                    if key in known:
                        lost["of a net that is known"] += 1
                        continue
                    known.add(key)
                    made += 1
                    yield decode(table), Proposal(condition=_condition_facts(table, part.how, loss, key))
                    if made == n:
                        _tell(made, lost)
                        return
            idle = 0 if made > before else idle + 1
        _tell(made, lost)

    def _can_generate(self, context: GenerationContext) -> bool:
        return True

    def _part(self, n: int, rng: np.random.Generator, context: GenerationContext) -> Iterator[_Made]:
        yield from self._random([self._random_condition(rng) for _ in range(n)], rng)

    def _random(self, conditions: Sequence[Condition], rng: np.random.Generator) -> Iterator[_Made]:
        volume = self.config.refine.volume
        middle = (0.8 * float(np.mean(volume)), 1.2 * float(np.mean(volume)))
        tables = [random_table(condition, middle, rng) for condition in conditions]
        yield _Made(self._refined(tables, rng), "random")

    def _random_condition(self, rng: np.random.Generator) -> Condition:
        return self.given[int(rng.integers(len(self.given)))] if self.given else random_condition(self.limits, rng)

    def _refined(self, tables: Sequence[TabularCrystal], rng: np.random.Generator) -> Refined:
        return refine(batch_of(tables, self.environment.species), self.environment, self.config.refine.recipe(), rng)

    def _accepted(self, refined: Refined) -> Iterator[tuple[TabularCrystal, float, str]]:
        rows = np.flatnonzero(refined.is_accepted)
        if len(rows):
            batch = refined.batch.subset(rows)
            yield from zip(batch.as_tables(), refined.loss[rows].tolist(), keys_of(batch, self.environment), strict=True)

    def _nets(self, crystals: Sequence[Crystal]) -> list[str]:
        tables = fitting(crystals, self.environment)
        return keys_of(batch_of(tables, self.environment.species), self.environment) if tables else []


class _Learned(RandomEnvironment):
    config: TabularConfig
    _is_conditional: ClassVar[bool]

    def is_ready(self, labelled: Sequence[LabelledCandidate]) -> bool:
        return len(labelled) >= self.config.least_labels

    def train(
        self,
        labelled: Sequence[LabelledCandidate],
        *,
        rng: np.random.Generator,
        context: GenerationContext,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Checkpoint:
        """Anew, on the labelled crystals of low energy, what was learned before, and the data of the config.

        Crystals of which none has an energy are all learned.
        """

        def told(at: Progress) -> None:
            if progress is not None:
                progress(at.step, at.steps, f"loss {at.loss:.2f}")

        settings = self.config.training
        tables = self._tables(labelled, context)
        trained = train(
            learnable(tables, self.environment, rng, most=settings.descriptions, trials=settings.subgroups),
            self.environment.species,
            TrainingSettings(settings.epochs, settings.batch_size, settings.rate),
            form=self.config.form,
            sizes=Sizes(settings.latent, settings.hidden, components=settings.components),
            is_conditional=self._is_conditional,
            seed=int(rng.integers(2**31)),
            progress=told,
        )
        return to_checkpoint(trained.model, tables, {**trained.metrics, "nets": float(len(tables))})

    def is_improvement(
        self, new: Checkpoint, old: Checkpoint | None, labelled: Sequence[LabelledCandidate], *, context: GenerationContext
    ) -> tuple[bool, Mapping[str, float]]:
        """Always: each training sees all that the one before saw, and more."""
        return True, dict(new.metrics)

    def _tables(self, labelled: Sequence[LabelledCandidate], context: GenerationContext) -> list[TabularCrystal]:
        key = context.objective.quantity if context.objective.quantity in _ENERGIES else ENERGY_PER_ATOM.name
        ranked = sorted((item for item in labelled if key in item.values), key=lambda item: (item.values[key], item.candidate.id))
        best = ranked[: max(1, round(self.config.training.best * len(ranked)))] if ranked else labelled
        found: dict[Any, TabularCrystal] = {}
        for table in [*self._known(context), *fitting([item.candidate.crystal for item in best], self.environment)]:
            found.setdefault((table.space_group, table.sites, table.points, table.cell), table)
        tables = list(found.values())
        if not tables:
            raise InputError(
                f"none of {len(best)} crystals has the target's elements and bonds",
                hint="give crystals that have them, or longer bonds: under target; in a campaign raise least_labels",
            )
        return tables

    def _known(self, context: GenerationContext) -> list[TabularCrystal]:
        checkpoint = self._checkpoint(context)
        if checkpoint is not None:
            return from_checkpoint(checkpoint)[1]
        return fitting(read_crystals(self.config.data), self.environment) if self.config.data is not None else []

    def _checkpoint(self, context: GenerationContext) -> Checkpoint | None:
        if context.checkpoint is None and self.config.weights is not None:
            return checkpoint_from_bytes(self.config.weights.read_bytes())
        return context.checkpoint

    def _can_generate(self, context: GenerationContext) -> bool:
        return self._checkpoint(context) is not None

    def _model(self, checkpoint: Checkpoint) -> tuple[TabularVAE, list[TabularCrystal]]:
        model, tables = from_checkpoint(checkpoint)
        if model.is_conditional != self._is_conditional or model.species != self.environment.species:
            kind = "a conditional VAE" if model.is_conditional else "a VAE of all columns"
            raise InputError(
                f"the weights are of {kind} for atomic numbers {list(model.species)}", hint="train for this target and generator"
            )
        return model, tables


class CVAE(_Learned):
    """Continuous columns from a conditional VAE, under space groups and sites that are drawn first."""

    Config: ClassVar[type[BaseModel]] = CVAEConfig
    _is_conditional = True

    def __init__(self, config: CVAEConfig) -> None:
        super().__init__(config)
        self.config: CVAEConfig = config

    def _part(self, n: int, rng: np.random.Generator, context: GenerationContext) -> Iterator[_Made]:
        checkpoint = self._checkpoint(context)
        assert checkpoint is not None
        model, tables = self._model(checkpoint)
        conditions = [condition for condition in self._conditions(n, tables, rng) if model.categories.knows(condition, model.species)]
        if not conditions and self.given:
            raise InputError(
                "the weights know none of the space groups and sites that are asked for", hint="train on crystals that have them"
            )
        if not conditions:
            return
        refined = self._refined(sample(model, conditions, rng), rng)
        yield _Made(refined, "cvae")
        settings = self.config.latent
        for _ in range(settings.rounds):
            conditions = [condition for condition, done in zip(conditions, refined.is_accepted, strict=True) if not done]
            if not conditions:
                return
            level = DualLevel(steps=settings.steps, rate=settings.rate)
            refined = self._refined(refine_latent(model, conditions, self.environment, level, rng), rng)
            yield _Made(refined, "cvae, latent")

    def _conditions(self, n: int, tables: Sequence[TabularCrystal], rng: np.random.Generator) -> list[Condition]:
        if self.given or self.config.conditions == "random":
            return [self._random_condition(rng) for _ in range(n)]
        if self.config.conditions == "data":
            return [condition_of(tables[int(row)]) for row in rng.integers(len(tables), size=n)]
        model = SiteModel.fit(tables)
        return [model.draw(self.limits, rng) for _ in range(n)]


class TabularVAEGenerator(_Learned):
    """All columns from one VAE, space groups and sites with them: what the conditional one is compared with."""

    Config: ClassVar[type[BaseModel]] = TabularConfig
    _is_conditional = False

    def __init__(self, config: TabularConfig) -> None:
        super().__init__(config)
        self.config: TabularConfig = config

    def _part(self, n: int, rng: np.random.Generator, context: GenerationContext) -> Iterator[_Made]:
        checkpoint = self._checkpoint(context)
        assert checkpoint is not None
        model, _ = self._model(checkpoint)
        tables = [table for table in sample_all(model, n, rng) if table is not None]
        if tables:
            yield _Made(self._refined(tables, rng), "vae")


_ENERGIES = (ENERGY_PER_ATOM.name, "formation_energy_per_atom")


def _condition_facts(table: TabularCrystal, how: str, loss: float, key: str) -> dict[str, str | int | float]:
    sites = " ".join(f"{index}" for index in table.sites)
    return {"space_group": table.space_group, "sites": sites, "made": how, "distance_from_target": round(loss, 6), "net": key}


def _tell(made: int, lost: Counter[str]) -> None:
    reasons = ", ".join(f"{count} {why}" for why, count in lost.items() if count)
    log.info("%d crystals of new nets; left out: %s", made, reasons or "none")
