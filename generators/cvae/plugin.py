"""The generators ``cvae``, ``tabular_vae`` and ``random_environment``: crystals by symmetry,
refined towards one local environment.

The last draws cells and coordinates at random, on sites that it learns to choose. The others train
on the labelled crystals of low energy that have the target's bonds, and propose nothing before
there are weights. All take the same refinement, and propose each net once.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field

from campaign.errors import InputError
from campaign.parameters import ConfigPath, Former, Formers, Parameters, WeightsPath
from campaign.protocols import GenerationContext
from campaign.types import ENERGY_PER_ATOM, Checkpoint, Crystal, LabelledCandidate, Proposal
from generators.cvae.data import fitting, learnable, read_crystals
from generators.cvae.described import Described
from generators.cvae.environment import Environment
from generators.cvae.feasible import Condition, is_feasible
from generators.cvae.forest import Outcomes, SiteForest, beside, outcomes_of
from generators.cvae.forest import from_checkpoint as from_forest
from generators.cvae.forest import to_checkpoint as forest_to_checkpoint
from generators.cvae.free_variables import batch_of
from generators.cvae.latent import DualLevel, refine_latent
from generators.cvae.model import Sizes, TabularVAE
from generators.cvae.nets import keys_of
from generators.cvae.refine import Refined, refine
from generators.cvae.settings import RefineConfig, SitesConfig, TargetConfig
from generators.cvae.sites import SiteModel, condition_of, random_condition, random_table
from generators.cvae.store import from_checkpoint, to_checkpoint
from generators.cvae.table import TabularCrystal, decode
from generators.cvae.train import TrainingSettings, sample, sample_all, train
from generators.networks.checkpoints import Starting
from generators.networks.training import Progress

log = logging.getLogger(__name__)
_PART = 500
_MOST_IDLE = 3


class EnvironmentConfig(Parameters):
    """What all of them share."""

    target: TargetConfig
    sites: SitesConfig = SitesConfig()
    refine: RefineConfig = RefineConfig()


class ForestConfig(Parameters):
    """Random forests that learn which sites to take."""

    power: float = Field(
        2.5, ge=0, description="Power (1) of the chances by which sites are drawn."
    )
    explored: float = Field(
        0.2, ge=0, le=1, description="Share (1) of sites that are drawn with equal chances."
    )
    tries: int = Field(
        1000,
        ge=10,
        description="Random conditions refined at each training, about 5 ms each, to learn what "
        "fails.",
    )
    best: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="Share (1) of the labelled crystals, lowest energy first, whose sites are "
        "wanted.",
    )


class RandomEnvironmentConfig(EnvironmentConfig):
    conditions: Literal["random", "forest"] = Field(
        "forest",
        description="Space groups and sites: random ones, or draws of random forests that learned "
        "what failed, what was accepted and what has a low energy; random before there are "
        "labels enough, and where sites are given.",
    )
    forest: ForestConfig = ForestConfig()
    min_labels: int = Field(50, ge=10, description="Labelled crystals before they first grow.")


class CVAETrainingConfig(Parameters):
    former: ClassVar[Formers] = {"learning_rate": Former("rate")}

    epochs: int = Field(250, ge=1, description="Epochs of each training.")
    batch_size: int = Field(500, ge=1, description="Crystals of a step.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate.")
    hidden: int = Field(1024, ge=1, description="Width of the hidden layers.")
    latent: int = Field(128, ge=1, description="Length of the latent vector.")
    components: int = Field(10, ge=1, description="Gaussians of each column's mixture.")
    descriptions: int = Field(
        20, ge=1, description="Equivalent descriptions of each crystal that are learned."
    )
    subgroups: int = Field(
        0, ge=0, description="Trials of describing each crystal in a subgroup, about 0.1 s each."
    )
    best: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share (1) of the labelled crystals, lowest energy first, that is learned.",
    )


class TabularConfig(EnvironmentConfig):
    """What the two learned ones share."""

    former: ClassVar[Formers] = {
        "min_labels": Former("least_labels"),
        "variant": Former("form", {"published": "paper", "better": "oreloop"}),
    }

    data: ConfigPath | None = Field(
        None,
        description="Known crystals beside the labelled ones: an ASE database, a file or a folder.",
    )
    weights: WeightsPath | None = Field(
        None,
        description="File that `oreloop train cvae` wrote, or models:/NAME@ALIAS, to start from.",
    )
    min_labels: int = Field(50, ge=10, description="Labelled crystals before it is first trained.")
    variant: Literal["paper", "oreloop"] = Field(
        "oreloop",
        description="paper: tanh in training, components mixed in sampling; oreloop: neither.",
    )
    training: CVAETrainingConfig = CVAETrainingConfig()


class LatentConfig(Parameters):
    former: ClassVar[Formers] = {"learning_rate": Former("rate")}

    rounds: int = Field(
        1,
        ge=0,
        description="Rounds of latent refinement of what is not accepted, after the first pass.",
    )
    steps: int = Field(100, ge=1, description="Steps of each, 0.1 to 0.2 ms a crystal.")
    learning_rate: float = Field(2e-2, gt=0, description="Learning rate of its optimiser.")


class CVAEConfig(TabularConfig):
    conditions: Literal["data", "model", "random", "forest"] = Field(
        "model",
        description="Space groups and sites: those of the learned crystals, draws of a small "
        "model of those, random ones, or draws of random forests that learned what failed too; "
        "these go to a network that is told them by features, so that it can be asked for any.",
    )
    forest: ForestConfig = ForestConfig()
    latent: LatentConfig = LatentConfig()


@dataclass(frozen=True, eq=False)
class _Made:
    refined: Refined
    how: str


class _Refining(ABC):
    """Crystals of new nets, from parts of refined ones that each generator makes its own way."""

    def __init__(self, config: EnvironmentConfig) -> None:
        self.config: EnvironmentConfig = config
        self.environment: Environment = config.target.environment()
        self.limits = config.sites.limits(self.environment)
        self.given = config.sites.conditions(self.environment)
        self._grown: tuple[Checkpoint, SiteForest] | None = None

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        """Crystals of ``n`` different nets that no labelled or awaited crystal has; fewer where
        three parts bring none.
        """
        if not self._can_generate(context):
            return
        known = set(
            self._nets(
                [item.candidate.crystal for item in context.labelled]
                + [item.crystal for item in context.pending]
            )
        )
        lost: Counter[str] = Counter()
        made, idle = 0, 0
        while idle < _MOST_IDLE:
            before = made
            for part in self._part(min(_PART, 4 * n), rng, context):
                refined = part.refined
                lost["without the target's bonds"] += int((~refined.is_valid).sum())
                lost["too far from the target, or of lower dimension"] += int(
                    (refined.is_valid & ~refined.is_accepted).sum()
                )
                for table, loss, key in self._accepted(refined):
                    if key in known:
                        lost["of a net that is known"] += 1
                        continue
                    known.add(key)
                    made += 1
                    yield (
                        decode(table),
                        Proposal(condition=_condition_facts(table, part.how, loss, key)),
                    )
                    if made == n:
                        _tell(made, lost)
                        return
            idle = 0 if made > before else idle + 1
        _tell(made, lost)

    def _can_generate(self, context: GenerationContext) -> bool:
        return True

    @abstractmethod
    def _part(
        self, n: int, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[_Made]: ...

    def _random(self, conditions: Sequence[Condition], rng: np.random.Generator) -> Refined:
        """Random cells and coordinates on the sites, refined."""
        volume = self.config.refine.volume
        middle = (0.8 * float(np.mean(volume)), 1.2 * float(np.mean(volume)))
        tables = [random_table(condition, middle, rng) for condition in conditions]
        return self._refined(tables, rng)

    def _random_condition(self, rng: np.random.Generator) -> Condition:
        return (
            self.given[int(rng.integers(len(self.given)))]
            if self.given
            else random_condition(self.limits, rng)
        )

    def _refined(self, tables: Sequence[TabularCrystal], rng: np.random.Generator) -> Refined:
        return refine(
            batch_of(tables, self.environment.species),
            self.environment,
            self.config.refine.recipe(),
            rng,
        )

    def _outcomes(
        self,
        settings: ForestConfig,
        before: Outcomes,
        labelled: Sequence[LabelledCandidate],
        context: GenerationContext,
        rng: np.random.Generator,
    ) -> tuple[Outcomes, Outcomes]:
        """Of conditions that were tried before and of random ones that are tried here: whether they
        were accepted. Of the labelled crystals: whether they are of low energy.
        """
        conditions = [self._random_condition(rng) for _ in range(settings.tries)]
        accepted = Outcomes(tuple(conditions), self._random(conditions, rng).is_accepted)
        ranked = _by_energy(labelled, context)
        places, is_low = [], []
        most = max(1, round(settings.best * len(ranked)))
        for rank, item in enumerate(ranked):
            for table in fitting([item.candidate.crystal], self.environment):
                places.append(condition_of(table))
                is_low.append(rank < most)
        return before.with_more(accepted), Outcomes(tuple(places), np.array(is_low, dtype=bool))

    def _drawn(
        self, n: int, settings: ForestConfig, checkpoint: Checkpoint, rng: np.random.Generator
    ) -> list[Condition]:
        """By the forests that grow from a checkpoint's outcomes, once for each checkpoint."""
        if self._grown is None or self._grown[0] is not checkpoint:
            accepted, low, seed = outcomes_of(checkpoint)
            self._grown = checkpoint, SiteForest(accepted, low, self.limits, seed)
        return self._grown[1].draw(n, rng, power=settings.power, explored=settings.explored)

    def _accepted(self, refined: Refined) -> Iterator[tuple[TabularCrystal, float, str]]:
        rows = np.flatnonzero(refined.is_accepted)
        if len(rows):
            batch = refined.batch.subset(rows)
            yield from zip(
                batch.as_tables(),
                refined.loss[rows].tolist(),
                keys_of(batch, self.environment),
                strict=True,
            )

    def _nets(self, crystals: Sequence[Crystal]) -> list[str]:
        tables = fitting(crystals, self.environment)
        return (
            keys_of(batch_of(tables, self.environment.species), self.environment) if tables else []
        )


class RandomEnvironment(_Refining):
    """Random cells and coordinates on sites that are random, or that random forests choose."""

    Config: ClassVar[type[BaseModel]] = RandomEnvironmentConfig

    def __init__(self, config: RandomEnvironmentConfig) -> None:
        super().__init__(config)
        self.config: RandomEnvironmentConfig = config

    def is_ready(self, labelled: Sequence[LabelledCandidate]) -> bool:
        return (
            self.config.conditions == "forest"
            and not self.given
            and len(labelled) >= self.config.min_labels
        )

    def train(
        self,
        labelled: Sequence[LabelledCandidate],
        *,
        rng: np.random.Generator,
        context: GenerationContext,
    ) -> Checkpoint:
        """On conditions that are tried here and those that were before, refined and accepted or
        not, and on the labelled crystals, of low energy or not.
        """
        before = (
            from_forest(context.checkpoint)[0] if context.checkpoint is not None else Outcomes()
        )
        accepted, low = self._outcomes(self.config.forest, before, labelled, context, rng)
        return forest_to_checkpoint(accepted, low, int(rng.integers(2**31)))

    def is_improvement(
        self,
        new: Checkpoint,
        old: Checkpoint | None,
        labelled: Sequence[LabelledCandidate],
        *,
        context: GenerationContext,
    ) -> tuple[bool, Mapping[str, float]]:
        """Always: each training sees all that the one before saw, and more."""
        return True, dict(new.metrics)

    def _part(
        self, n: int, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[_Made]:
        if context.checkpoint is None or self.given or self.config.conditions == "random":
            conditions = [self._random_condition(rng) for _ in range(n)]
        else:
            conditions = self._drawn(n, self.config.forest, context.checkpoint, rng)
        yield _Made(self._random(conditions, rng), "random")


class _Learned(Starting, _Refining):
    config: TabularConfig
    _is_conditional: ClassVar[bool]

    @property
    def _by_features(self) -> bool:
        """Whether the network is told conditions by features."""
        return False

    def __init__(self, config: TabularConfig) -> None:
        _Refining.__init__(self, config)
        Starting.__init__(self, config)

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
        """Anew, on the labelled crystals of low energy, what was learned before, and the data of
        the config.

        Crystals of which none has an energy are all learned.
        """

        def told(at: Progress) -> None:
            if progress is not None:
                progress(at.step, at.steps, f"loss {at.loss:.2f}")

        settings = self.config.training
        tables = self._tables(labelled, context)
        trained = train(
            learnable(
                tables, self.environment, rng, most=settings.descriptions, trials=settings.subgroups
            ),
            self.environment.species,
            TrainingSettings(settings.epochs, settings.batch_size, settings.learning_rate),
            variant=self.config.variant,
            sizes=Sizes(settings.latent, settings.hidden, components=settings.components),
            is_conditional=self._is_conditional,
            by_features=self._by_features,
            seed=int(rng.integers(2**31)),
            progress=told,
        )
        return to_checkpoint(trained.model, tables, {**trained.metrics, "nets": float(len(tables))})

    def is_improvement(
        self,
        new: Checkpoint,
        old: Checkpoint | None,
        labelled: Sequence[LabelledCandidate],
        *,
        context: GenerationContext,
    ) -> tuple[bool, Mapping[str, float]]:
        """Always: each training sees all that the one before saw, and more."""
        return True, dict(new.metrics)

    def _tables(
        self, labelled: Sequence[LabelledCandidate], context: GenerationContext
    ) -> list[TabularCrystal]:
        ranked = _by_energy(labelled, context)
        best = (
            ranked[: max(1, round(self.config.training.best * len(ranked)))] if ranked else labelled
        )
        found: dict[Any, TabularCrystal] = {}
        for table in [
            *self._known(context),
            *fitting([item.candidate.crystal for item in best], self.environment),
        ]:
            found.setdefault((table.space_group, table.sites, table.points, table.cell), table)
        tables = list(found.values())
        if not tables:
            raise InputError(
                f"none of {len(best)} crystals has the target's elements and bonds",
                hint="give crystals that have them, or longer bonds: under target; in a "
                "campaign raise min_labels",
            )
        return tables

    def _known(self, context: GenerationContext) -> list[TabularCrystal]:
        checkpoint = self._checkpoint(context)
        if checkpoint is not None:
            return from_checkpoint(checkpoint)[1]
        return (
            fitting(read_crystals(self.config.data), self.environment)
            if self.config.data is not None
            else []
        )

    def _can_generate(self, context: GenerationContext) -> bool:
        return self._checkpoint(context) is not None

    def _model(self, checkpoint: Checkpoint) -> tuple[TabularVAE, list[TabularCrystal]]:
        model, tables = from_checkpoint(checkpoint)
        if (
            model.is_conditional != self._is_conditional
            or model.species != self.environment.species
        ):
            kind = "a conditional VAE" if model.is_conditional else "a VAE of all columns"
            raise InputError(
                f"the weights are of {kind} for atomic numbers {list(model.species)}",
                hint="train for this target and generator",
            )
        if isinstance(model.conditions, Described) != self._by_features:
            told = "features" if isinstance(model.conditions, Described) else "their names"
            raise InputError(
                f"the weights are told conditions by {told}, which the config does not ask for",
                hint="conditions: forest takes features; train for these conditions",
            )
        return model, tables


class CVAE(_Learned):
    """Continuous columns from a conditional VAE, under space groups and sites that are drawn
    first.
    """

    Config: ClassVar[type[BaseModel]] = CVAEConfig
    config: CVAEConfig
    _is_conditional = True

    @property
    def _by_features(self) -> bool:
        return self.config.conditions == "forest"

    def train(
        self,
        labelled: Sequence[LabelledCandidate],
        *,
        rng: np.random.Generator,
        context: GenerationContext,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Checkpoint:
        """As all that learn; where forests choose the sites, with their outcomes beside the
        weights.
        """
        trained = super().train(labelled, rng=rng, context=context, progress=progress)
        if not self._by_features or self.given:
            return trained
        old = self._checkpoint(context)
        before = outcomes_of(old)[0] if old is not None else Outcomes()
        accepted, low = self._outcomes(self.config.forest, before, labelled, context, rng)
        forest = forest_to_checkpoint(accepted, low, int(rng.integers(2**31)))
        return beside(trained, forest)

    def _part(
        self, n: int, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[_Made]:
        checkpoint = self._checkpoint(context)
        assert checkpoint is not None
        model, tables = self._model(checkpoint)
        drawn = self._conditions(n, tables, checkpoint, rng)
        conditions = [
            item for item in drawn if model.knows(item) and is_feasible(item, self.limits)
        ]
        if not conditions and self.given:
            raise InputError(
                "the weights know none of the space groups and sites that are asked for",
                hint="train on crystals that have them",
            )
        if not conditions:
            return
        refined = self._refined(sample(model, conditions, rng), rng)
        yield _Made(refined, "cvae")
        settings = self.config.latent
        for _ in range(settings.rounds):
            conditions = [
                condition
                for condition, done in zip(conditions, refined.is_accepted, strict=True)
                if not done
            ]
            if not conditions:
                return
            level = DualLevel(steps=settings.steps, rate=settings.learning_rate)
            if self.config.refine.variant == "paper":
                level = replace(level, cutoff=None)
            refined = self._refined(
                refine_latent(model, conditions, self.environment, level, rng), rng
            )
            yield _Made(refined, "cvae, latent")

    def _conditions(
        self,
        n: int,
        tables: Sequence[TabularCrystal],
        checkpoint: Checkpoint,
        rng: np.random.Generator,
    ) -> list[Condition]:
        if self.given or self.config.conditions == "random":
            return [self._random_condition(rng) for _ in range(n)]
        if self.config.conditions == "forest":
            return self._drawn(n, self.config.forest, checkpoint, rng)
        if self.config.conditions == "data":
            return [condition_of(tables[int(row)]) for row in rng.integers(len(tables), size=n)]
        model = SiteModel.fit(tables)
        return [model.draw(self.limits, rng) for _ in range(n)]


class TabularVAEGenerator(_Learned):
    """All columns from one VAE, space groups and sites with them: what the conditional one is
    compared with.
    """

    Config: ClassVar[type[BaseModel]] = TabularConfig
    _is_conditional = False

    def _part(
        self, n: int, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[_Made]:
        checkpoint = self._checkpoint(context)
        assert checkpoint is not None
        model, _ = self._model(checkpoint)
        drawn = [table for table in sample_all(model, n, rng) if table is not None]
        tables = [table for table in drawn if is_feasible(condition_of(table), self.limits)]
        if tables:
            yield _Made(self._refined(tables, rng), "vae")


def _by_energy(
    labelled: Sequence[LabelledCandidate], context: GenerationContext
) -> list[LabelledCandidate]:
    """Those with an energy, lowest first."""
    wanted = context.objective.quantity
    key = wanted if wanted in _ENERGIES else ENERGY_PER_ATOM.name
    return sorted(
        (item for item in labelled if key in item.values),
        key=lambda item: (item.values[key], item.candidate.id),
    )


_ENERGIES = (ENERGY_PER_ATOM.name, "formation_energy_per_atom")


def _condition_facts(
    table: TabularCrystal, how: str, loss: float, key: str
) -> dict[str, str | int | float]:
    sites = " ".join(f"{index}" for index in table.sites)
    return {
        "space_group": table.space_group,
        "sites": sites,
        "made": how,
        "distance_from_target": round(loss, 6),
        "net": key,
    }


def _tell(made: int, lost: Counter[str]) -> None:
    reasons = ", ".join(f"{count} {why}" for why, count in lost.items() if count)
    log.info("%d crystals of new nets; left out: %s", made, reasons or "none")
