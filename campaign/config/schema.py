"""The frame of a campaign's config. Each plug-in owns its nested ``Config`` beside its code.

Every physical field states its unit. ``frozen`` and ``extra="forbid"`` throughout: a config never
changes, and a wrong key is an error.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    ValidationInfo,
    model_validator,
)

from campaign.config.checks import ASKS_NO_SURROGATE, problems
from campaign.crystals import abundance
from campaign.crystals.chemistry import ChargeNeutral, FixedRatio, ValueBound
from campaign.crystals.corrections import Corrections
from campaign.parameters import Former, Formers, OpenWindow, Parameters, Window, truths_for_numbers
from campaign.reading.disorder import Disorder
from campaign.reading.passwords import check_password, without_password
from campaign.reading.structures import OnError
from campaign.reading.tables import Column
from campaign.types import CompositionRule, Direction, FailureKind, Objective, SearchSpace, Together


class Frame(Parameters):
    model_config = ConfigDict(allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _no_truth_for_numbers(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        taken = handler(values)
        for place in truths_for_numbers(values, taken):
            raise ValueError(
                f"{'.'.join(str(part) for part in place)}: expected a number, found true or false"
            )
        return taken


def _element(value: Any) -> Any:
    from ase.data import atomic_numbers

    if not isinstance(value, str | bool):
        raise ValueError(f"expected an element's symbol, such as Ni, found {value!r}")
    if value is False or value is True:
        raise ValueError(
            "YAML reads this element as true or false: put its symbol in quotes, such as 'No'"
        )
    if value not in atomic_numbers or value == "X":
        raise ValueError(f"{value!r} is no chemical element")
    return value


Element = Annotated[str, BeforeValidator(_element)]
Fraction = Annotated[float, Field(ge=0, le=1)]
FractionByElement = Fraction | dict[Element, Fraction]


class TogetherConfig(Frame):
    """Bounds of what the fractions of some elements add up to."""

    elements: tuple[Element, ...] = Field(min_length=1)
    min_fraction: Fraction = Field(0.0, description="Minimum sum (1) of their atomic fractions.")
    max_fraction: Fraction = Field(1.0, description="Maximum sum (1) of their atomic fractions.")


class SpaceConfig(Frame):
    elements: tuple[Element, ...] = Field(
        min_length=1, description="Elements that candidates may hold."
    )
    min_fraction: FractionByElement = Field(
        0.0, description="Minimum atomic fraction (1) of every element, or a mapping by element."
    )
    max_fraction: FractionByElement = Field(
        1.0, description="Maximum atomic fraction (1) of every element, or a mapping by element."
    )
    together: tuple[TogetherConfig, ...] = Field(
        (), description="Bounds of sums of fractions, such as Ni + Fe at least 0.5."
    )

    charge_neutral: bool = Field(
        False,
        description="Whether oxidation states, one of each element or two neighbouring ones of "
        "mixed valence, have to add up to 0.",
    )
    oxidation_states: dict[Element, tuple[int, ...]] = Field(
        default_factory=dict,
        description="charge_neutral: states that count, by element; those that smact finds in "
        "the ICSD where absent.",
    )
    electronegativity_order: bool = Field(
        False,
        description="charge_neutral: whether cations have to be less electronegative (Pauling) "
        "than anions.",
    )
    ratios: dict[Element, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="Atoms of some elements in a fixed ratio, such as {Li: 1, O: 2}; all of "
        "them are there.",
    )

    @property
    def rules(self) -> tuple[CompositionRule, ...]:
        neutral = (
            (ChargeNeutral(self.oxidation_states, self.electronegativity_order),)
            if self.charge_neutral
            else ()
        )
        return (*neutral, *((FixedRatio(self.ratios),) if self.ratios else ()))

    @property
    def space(self) -> SearchSpace:
        def by_element(value: float | dict[str, float]) -> dict[str, float]:
            return dict(value) if isinstance(value, dict) else dict.fromkeys(self.elements, value)

        together = tuple(
            Together(group.elements, group.min_fraction, group.max_fraction)
            for group in self.together
        )
        return SearchSpace(
            self.elements,
            by_element(self.min_fraction),
            by_element(self.max_fraction),
            together,
            self.rules,
        )


class ObjectiveConfig(Frame):
    quantity: str = Field(
        description="Name of a quantity that one of the oracles measures, "
        "formation_energy_per_atom or energy_above_hull; a further "
        "objective may be price_per_kg (USD/kg), hhi_production or hhi_reserve (0 to 10,000) "
        "too, which the composition decides."
    )
    direction: Direction = "maximize"
    value: float | None = Field(
        None, description="match: the value wanted, in the quantity's unit."
    )
    target: float | None = Field(
        None,
        description="Value at which the campaign stops, in the quantity's unit; match: distance.",
    )

    @model_validator(mode="after")
    def _complete(self) -> ObjectiveConfig:
        if (self.direction == "match") != (self.value is not None):
            raise ValueError("value belongs to direction match, and match needs it")
        return self

    @property
    def objective(self) -> Objective:
        return Objective(self.quantity, self.direction, self.target, self.value)


class ConstraintConfig(Frame):
    """A bound on a quantity that candidates have to hold; it is modelled like an objective."""

    quantity: str = Field(
        description="Name of a quantity that the objective's oracle measures, "
        "formation_energy_per_atom, energy_above_hull, or "
        "price_per_kg (USD/kg), hhi_production or hhi_reserve (0 to 10,000), which the "
        "composition decides: no candidate breaks these."
    )
    at_least: float | None = Field(None, description="Minimum value, in the quantity's unit.")
    at_most: float | None = Field(None, description="Maximum value, in the quantity's unit.")

    @model_validator(mode="after")
    def _bounded(self) -> ConstraintConfig:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"constraint on {self.quantity}: give either at_least or at_most")
        return self

    @property
    def bound(self) -> tuple[int, float]:
        """+1 for at least, -1 for at most; and the value."""
        return (-1, self.at_most) if self.at_most is not None else (1, float(self.at_least or 0.0))


class BudgetConfig(Frame):
    rounds: int | None = Field(None, ge=1, description="Maximum number of rounds.")
    labels: int | None = Field(
        None, ge=1, description="Maximum number of labels paid for by this campaign."
    )
    wall_time: float | None = Field(
        None, gt=0, description="Maximum running time over all sessions (s)."
    )
    oracle_seconds: dict[str, float] = Field(
        default_factory=dict, description="Maximum worker time (s) by oracle name."
    )
    cost: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="What labels may cost at most, by currency; what is under way when it is spent "
        "still ends.",
    )


class StoppingConfig(Frame):
    stagnation_rounds: int | None = Field(
        None, ge=1, description="Stop after this many finished rounds without a better label."
    )
    empty_rounds: int = Field(
        5, ge=1, description="Stop after this many rounds in a row that found nothing new to label."
    )


class ColumnConfig(Frame):
    """A column of a source with its unit."""

    column: str = Field(description="Name of the column or key.")
    unit: str = Field(
        "",
        description="Unit of its values; by default the one in the header or beside the "
        "values, else the quantity's.",
    )
    per: Literal["", "cell", "atom"] = Field(
        "", description="Energies and volumes: of the whole cell, or per atom."
    )


class SourceConfig(Frame):
    """Structures from CIF, POSCAR, extxyz, an ASE database, a folder of these, a CSV with a CIF
    column, or another campaign's folder.
    """

    path: str = Field(description="File or folder; relative paths start at the config's folder.")
    structure_column: str = Field("cif", description="CSV: the column that holds the CIF text.")
    columns: dict[str, str | ColumnConfig] = Field(
        default_factory=dict,
        description="Quantity name: column or key that holds its value, or {column, unit, "
        "per}. A header such as `hardness (GPa)` says "
        "its unit, and other units are converted.",
    )
    oracle: str | None = Field(
        None, description="The oracle in this config whose labels these values are taken to be."
    )
    on_error: OnError = Field(
        "refuse",
        description="Structures that cannot be read: refuse the source, or skip and count them.",
    )
    disorder: Disorder | None = Field(
        None,
        description="Partly occupied sites as ordered cells; such structures are refused where "
        "absent.",
    )

    @model_validator(mode="after")
    def _no_labels_of_disorder(self) -> SourceConfig:
        if self.disorder is not None and self.columns:
            raise ValueError(
                "expected columns or disorder: a value measured on a disordered crystal is not "
                "that of an ordered cell"
            )
        return self

    from_oracle: str | None = Field(
        None,
        description="Campaign: whose labels are taken; needed where several oracles gave some.",
    )
    replicates: Literal["error", "mean"] = Field(
        "error",
        description="Several values of one crystal: an error, or their mean, whose noise "
        "is their standard deviation over the square root of their number.",
    )

    @property
    def located(self) -> dict[str, Column]:
        """Where each quantity stands."""
        return {
            quantity: Column(column)
            if isinstance(column, str)
            else Column(column.column, column.unit, column.per)
            for quantity, column in self.columns.items()
        }


class Component(Frame):
    use: str = Field(description="Name of an installed plug-in, or my_package.module:MyClass.")
    params: dict[str, Any] = Field(default_factory=dict, description="The plug-in's own settings.")


class GeneratorConfig(Component):
    gone: ClassVar[Mapping[str, Any]] = {"oversampling": 1}

    name: str | None = Field(None, description="Name in the ledger; the plug-in's name by default.")
    count: int = Field(100, ge=1, description="Candidates asked for in each round.")

    @property
    def label(self) -> str:
        return self.name or self.use.rpartition(":")[2]


class ScreensConfig(Frame):
    min_distance: float = Field(
        1.0, gt=0, description="Shortest distance between atoms (angstrom)."
    )
    volume_per_atom: Window = Field(
        (2.0, 200.0), description="Minimum and maximum volume per atom (angstrom^3)."
    )
    same: Literal["shape", "structure"] | None = Field(
        None,
        description="Whether crystals that differ in volume alone are one candidate (shape) or "
        "several (structure); by default shape where "
        "every oracle relaxes the volume, structure elsewhere.",
    )
    match_length: float = Field(
        0.05,
        gt=0,
        description="Duplicates: largest relative difference of the primitive cells' edges (1).",
    )
    match_site: float = Field(
        0.05,
        gt=0,
        description="Duplicates: how far atoms lie apart, root mean square, in units of "
        "(V/n)^(1/3); none over three times that.",
    )
    match_angle: float = Field(
        1.0,
        gt=0,
        description="Duplicates: largest difference of the primitive cells' angles (degrees).",
    )
    match_volume: float = Field(
        0.005,
        gt=0,
        description="Duplicates, same: structure: largest relative difference of volumes (1).",
    )
    extra: tuple[Component, ...] = Field(
        (), description="Further screens, asked in this order after the built-in ones."
    )


AcquisitionName = Literal[
    "log_expected_improvement",
    "log_noisy_expected_improvement",
    "upper_confidence_bound",
    "thompson",
    "max_value_entropy",
    "knowledge_gradient",
    "log_expected_hypervolume_improvement",
    "straddle",
    "greedy_mean",
    "uncertainty",
    "query_by_committee",
    "hull",
    "random",
    "all",
]


class AcquisitionConfig(Frame):
    former: ClassVar[Formers] = {
        "min_distance": Former("least_distance"),
        "trust_min": Former("accurate_below"),
        "trust_max": Former("strange_above"),
    }
    use: AcquisitionName = "log_noisy_expected_improvement"
    batch_size: int = Field(5, ge=1, description="Candidates selected together.")
    initial_labels: int = Field(
        10, ge=1, description="Labels chosen at random before a model is asked."
    )
    tolerance: float = Field(
        0.0,
        ge=0,
        description="hull: energy above the hull (eV/atom) up to which a crystal is worth finding.",
    )
    beta: float = Field(
        2.0,
        gt=0,
        description="upper_confidence_bound: weight of the posterior's standard deviation.",
    )
    weights: tuple[float, ...] = Field(
        (), description="Several objectives in a weighted sum: weight of each; all 1 by default."
    )
    exploration: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share (1) of each batch that is drawn at random from the pool.",
    )
    min_distance: float = Field(
        1e-6,
        ge=0,
        description="Minimum distance in a batch: root mean square over descriptor columns "
        "scaled to a range of 1.",
    )
    recalibrate: bool = Field(
        False,
        description="Scale the model's standard deviations where its last predictions were off.",
    )
    samples: int = Field(
        64, ge=1, description="Quasi Monte Carlo samples of the joint acquisition values."
    )
    pool_size: int = Field(
        2000, ge=1, description="Unlabelled candidates kept for selection, the latest first."
    )
    trust_min: float = Field(
        0.05,
        ge=0,
        description="query_by_committee: disagreement on a force (eV/angstrom) below which a "
        "crystal is accurate already.",
    )
    trust_max: float = Field(
        2.0,
        gt=0,
        description="query_by_committee: disagreement (eV/angstrom) above which a crystal is "
        "too strange to be worth a label.",
    )
    shortlist: int = Field(
        100,
        ge=1,
        description="Candidates that enter the joint selection, the best by their own value.",
    )


class GeneratorSharesConfig(Frame):
    """A bandit over the generators: who brought more per second is asked for more."""

    floor: float = Field(
        0.1, gt=0, le=1, description="Minimum share (1) of the proposals that each generator keeps."
    )
    memory: float = Field(
        0.9, gt=0, le=1, description="Weight (1) of a round against the one after it."
    )


SCHEDULER_COMMANDS = {
    "slurm": ("sbatch", "squeue", "scancel"),
    "pbs": ("qsub", "qselect", "qstat", "qdel"),
    "lsf": ("bsub", "bjobs", "bkill"),
}
"""By scheduler, what has to be on the machine that submits."""


class QueueConfig(Frame):
    """A batch scheduler that runs each label as a job of its own, or jobs with workers."""

    scheduler: Literal["slurm", "pbs", "lsf"] = Field(
        "slurm", description="slurm, pbs (OpenPBS, PBS Professional), or lsf (10.1)."
    )
    partition: str | None = Field(
        None,
        description="Partition of Slurm, queue of PBS and LSF; the scheduler's own default where "
        "absent.",
    )
    account: str | None = Field(
        None, description="Account or project that the jobs are charged to."
    )
    nodes: int = Field(1, ge=1, description="Nodes of each job.")
    time: float | None = Field(
        None,
        gt=0,
        description="Longest time that a job may run (s), not wait; by default what wall_limit "
        "and start_limit add up to.",
    )
    setup: tuple[str, ...] = Field(
        (),
        description="Lines of bash before the label, such as `module load vasp`; one that "
        "fails ends the job.",
    )
    options: tuple[str, ...] = Field(
        (), description="Further words of the command that submits, such as --constraint=ib."
    )
    max_jobs: int = Field(
        50,
        ge=1,
        description="Maximum number of the oracle's jobs in the queue, those that run too.",
    )
    check_every: float = Field(
        10.0, gt=0, description="Time between two questions to the scheduler (s)."
    )
    workers: int = Field(1, ge=1, description="run_on pilots: workers of each job.")
    idle: float = Field(
        300.0,
        ge=0,
        description="run_on pilots: a job whose workers had nothing to do for so long, and that "
        "the least number of workers does not need, is ended (s).",
    )

    @property
    def lacking(self) -> str:
        """Why the scheduler cannot be asked from this machine; empty where it can."""
        missing = [
            name for name in SCHEDULER_COMMANDS[self.scheduler] if shutil.which(name) is None
        ]
        return (
            f"{', '.join(missing)} of {self.scheduler} {'is' if len(missing) == 1 else 'are'} "
            "not on this machine"
            if missing
            else ""
        )


class CostConfig(Frame):
    """What an hour of a worker costs."""

    per_hour: float = Field(ge=0, description="Price of an hour of one worker, in the currency.")
    currency: str = Field(min_length=1, description="Its unit, such as EUR, or kWh for energy.")


def _least_first(bounds: tuple[int, int]) -> tuple[int, int]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the least number comes first, found {list(bounds)}")
    return bounds


WorkerBounds = Annotated[
    tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]], AfterValidator(_least_first)
]
"""The least and the most workers."""


class OracleConfig(Component):
    name: str | None = Field(None, description="Name in the ledger; the plug-in's name by default.")
    python: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None,
        description="The interpreter that it lives in, such as ../.venv-sevennet/bin/python, "
        "or the words of a command that starts one; "
        "a path starts at the config's folder. The interpreter of oreloop by default.",
    )
    run_on: Literal["executor", "queue", "pilots"] = Field(
        "executor",
        description="executor: by worker processes of the campaign's executor; queue: each "
        "label is a job of a batch queue; pilots: by workers in jobs of a batch queue, which join "
        "the campaign's Ray.",
    )
    queue: QueueConfig | None = Field(
        None,
        description="run_on queue or pilots: what its jobs are; the scheduler's own defaults "
        "where absent.",
    )
    workers: Annotated[int, Field(ge=1)] | WorkerBounds = Field(
        1, description="Worker processes; run_on pilots: the least and the most, as [0, 32]."
    )
    batch: int = Field(
        1,
        ge=1,
        description="Maximum number of crystals that a worker gets, of an oracle that evaluates "
        "many together.",
    )
    cpus: float = Field(1.0, ge=0, description="Processor cores requested by each worker.")
    gpus: float = Field(0.0, ge=0, description="GPUs requested by each worker.")
    memory: int = Field(
        0, ge=0, description="Memory requested by each worker (bytes; 0 requests none)."
    )
    wall_limit: float | None = Field(
        None,
        gt=0,
        description="Longest time for one evaluation (s); the worker is killed after it. By "
        "default 600, and none where people answer.",
    )
    start_limit: float = Field(120.0, gt=0, description="Longest time for a worker to start (s).")
    cost: CostConfig | None = Field(
        None,
        description="What its worker time costs, told by plan, status and report, and for "
        "budget.cost.",
    )
    sanity: dict[str, OpenWindow] = Field(
        default_factory=dict,
        description="Minimum and maximum believable value by quantity, in its unit; outside is a "
        "failure.",
    )

    @property
    def label(self) -> str:
        return self.name or self.use.rpartition(":")[2]

    @property
    def jobs(self) -> QueueConfig | None:
        """What its labels are as jobs; None where worker processes make them."""
        return (self.queue or QueueConfig()) if self.run_on == "queue" else None

    @property
    def pilots(self) -> QueueConfig | None:
        """What the jobs are that its workers live in; None where they live elsewhere."""
        return (self.queue or QueueConfig()) if self.run_on == "pilots" else None

    @property
    def worker_bounds(self) -> tuple[int, int]:
        """The least and the most workers."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)

    @property
    def at_once(self) -> int:
        """Most labels under way at once, but for batches."""
        return self.jobs.max_jobs if self.jobs is not None else self.worker_bounds[1]


class GateConstraintConfig(ConstraintConfig):
    """A bound on a quantity that labels of the level below have to hold."""

    quantity: str = Field(
        description="Name of a quantity of the level below, such as disagreement or "
        "lowest_frequency."
    )


class GateConfig(Frame):
    """Who climbs to a level: labels below it that pass a threshold, are among the best, hold
    constraints; all that are given.
    """

    quantity: str | None = Field(
        None, description="Quantity of the level below that is judged; the objective's by default."
    )
    threshold: float | None = Field(
        None, description="Value, in the quantity's unit, that a label has to reach."
    )
    best_fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share (1) of the level's labels, the best first, that climbs.",
    )
    constraints: tuple[GateConstraintConfig, ...] = Field(
        (),
        description="Bounds that a label has to hold: a committee's disagreement at_most sends "
        "up what is believed, at_least what is not.",
    )

    @model_validator(mode="after")
    def _gated(self) -> GateConfig:
        if self.threshold is None and self.best_fraction is None and not self.constraints:
            raise ValueError("a gate needs constraints, threshold or best_fraction")
        return self

    @property
    def judged(self) -> tuple[str, ...]:
        """The quantities that it names."""
        named = () if self.quantity is None else (self.quantity,)
        return (*named, *(item.quantity for item in self.constraints))


class LevelConfig(Frame):
    oracle: str = Field(description="Name of an oracle.")
    gate: GateConfig | None = Field(
        None, description="Who climbs to this level from the one before; not for the first level."
    )
    labels: int | None = Field(None, ge=1, description="Maximum number of labels at this level.")
    start: Literal["proposed", "relaxed"] = Field(
        "proposed",
        description="The crystal that it gets: as proposed, or as a level below relaxed it; "
        "models send only such candidates there.",
    )
    cost: float | None = Field(
        None,
        gt=0,
        description="Declared cost of a label (s); learned from past timings where absent.",
    )


class AuditConfig(Frame):
    every: int = Field(5, ge=1, description="Rounds between two audits.")
    sample: int = Field(
        2,
        ge=1,
        description="Candidates that each audit sends to a level, drawn at random from the "
        "level below, for the first from the accepted.",
    )
    each_generator: bool = Field(
        False, description="So many of what each generator proposed, in place of so many of all."
    )


class ApprovalConfig(Frame):
    """Whom a person has to approve, with `oreloop control`, before it gets to a costly level."""

    before: str = Field(
        description="Name of the level's oracle; those above it are closed too. Whoever would "
        "climb there waits."
    )


class FidelitiesConfig(Frame):
    """Oracles as a ladder, the cheapest first."""

    mode: Literal["gates", "acquisition"] = Field(
        "gates",
        description="gates: labels below decide who climbs; acquisition: a multi-fidelity "
        "model chooses candidate and level.",
    )
    levels: tuple[LevelConfig, ...] = Field(min_length=2)
    audit: AuditConfig | None = Field(
        None,
        description="Scores a random sample again one level up, to see bias and rank correlation.",
    )
    approval: ApprovalConfig | None = None

    @property
    def approved(self) -> frozenset[str]:
        """The levels that candidates get to once people approved them."""
        names = [level.oracle for level in self.levels]
        return (
            frozenset(names[names.index(self.approval.before) :])
            if self.approval is not None
            else frozenset()
        )

    @model_validator(mode="after")
    def _ordered(self) -> FidelitiesConfig:
        if self.levels[0].gate is not None:
            raise ValueError(
                f"the first level, {self.levels[0].oracle}, has no level below it and so no gate"
            )
        if self.levels[0].start == "relaxed":
            raise ValueError(
                f"the first level, {self.levels[0].oracle}, has no level below it that could "
                "relax for it"
            )
        if self.approval is not None and self.approval.before == self.levels[0].oracle:
            raise ValueError(
                f"approval: nobody climbs to the first level, {self.levels[0].oracle}; name "
                "one above it"
            )
        for level in self.levels[1:]:
            if self.mode == "gates" and level.gate is None:
                raise ValueError(f"level {level.oracle} needs a gate: who climbs to it")
        return self


class ReferencesConfig(Frame):
    """Crystals of the elements, labelled first, to which formation energies refer."""

    structures: dict[Element, str] = Field(
        default_factory=dict,
        description="By element, where it is not the ground state that comes with oreloop: "
        "fcc, bcc, hcp, diamond, sc, or a file of its "
        "crystal, such as O2.cif; relative paths start at the config's folder.",
    )
    chemical_potentials: dict[Element, float | dict[str, float]] = Field(
        default_factory=dict,
        description="Energies of elements (eV/atom) in place of their crystals': a number, or "
        "a number by oracle where several label.",
    )
    corrections: Corrections | None = Field(
        None,
        description="Corrections that formation energies of all levels get: of anions, for "
        "energies by PBE (materials_project_2020); of "
        "oxides and fluorides of V, Cr, Mn, Fe, Co, Ni, Mo and W too, for Materials Project's "
        "PBE + U and potentials that learned it "
        "(materials_project_2020_with_u); none by default. Never with a model that learned "
        "corrected energies.",
    )
    oracles: tuple[str, ...] | None = Field(
        None, description="Oracles that label them; all that measure energies by default."
    )


class KnownConfig(Frame):
    """Crystals that are known elsewhere: structure files, a folder of them, or a CSV with a CIF
    column.
    """

    path: str = Field(description="File or folder; relative paths start at the config's folder.")
    structure_column: str = Field("cif", description="CSV: the column that holds the CIF text.")


class PhasesConfig(Frame):
    """Competing phases: crystals that the campaign's own oracles label before all others, so that
    the hull holds them.
    """

    former: ClassVar[Formers] = {
        "max_atoms": Former("most_atoms"),
        "max_structures": Former("most"),
    }

    path: str | None = Field(
        None,
        description="File or folder of structures; relative paths start at the config's folder.",
    )
    structure_column: str = Field("cif", description="CSV: the column that holds the CIF text.")
    optimade: str | None = Field(
        None, description="Base URL of an OPTIMADE provider; asked once, in the first session."
    )
    filter: str | None = Field(
        None,
        description="OPTIMADE filter; by default all structures of the space's elements alone.",
    )
    max_structures: int = Field(
        1000, ge=1, description="Maximum number of structures taken from the provider."
    )
    max_atoms: int = Field(60, ge=1, description="Atoms of the largest cell that is labelled.")
    known: bool = Field(
        True, description="Known phases are no finds: they compete, and rank nowhere."
    )
    oracles: tuple[str, ...] | None = Field(
        None, description="Oracles that label them; all that measure energies by default."
    )

    @model_validator(mode="after")
    def _sourced(self) -> PhasesConfig:
        if self.path is None and self.optimade is None:
            raise ValueError("phases need a path, or an OPTIMADE provider: optimade")
        return self


class ExpectedConfig(Frame):
    element: Element
    quantity: str
    value: float = Field(description="Known value, in the quantity's unit.")
    tolerance: float = Field(gt=0, description="Maximum deviation from it, in the quantity's unit.")


class SentinelsConfig(Frame):
    """Reference crystals scored again and again; a drift stops the campaign."""

    every: int = Field(
        10,
        ge=1,
        description="Rounds between two scorings; there is one at the start of each session too.",
    )
    oracles: tuple[str, ...] | None = Field(
        None, description="Oracles that are watched; all by default."
    )
    tolerance: float = Field(
        1e-3,
        gt=0,
        description="Maximum relative drift (1) of any scalar quantity from its first value.",
    )
    expected: tuple[ExpectedConfig, ...] = Field(
        (), description="Values of the elements' crystals that are known from elsewhere."
    )


class RetryConfig(Frame):
    retries: int = Field(1, ge=0, description="Further attempts after the first.")
    softer: tuple[dict[str, Any], ...] = Field(
        (), description="Settings of the oracle that retry 1, 2, ... overrides."
    )


class FailurePolicyConfig(Frame):
    crash: RetryConfig = RetryConfig(retries=1)
    timeout: RetryConfig = RetryConfig(retries=0)
    not_converged: RetryConfig = RetryConfig(retries=1)
    unphysical: RetryConfig = RetryConfig(retries=0)
    out_of_memory: RetryConfig = RetryConfig(retries=0)
    infrastructure: RetryConfig = RetryConfig(retries=3)
    window: int = Field(
        20, ge=1, description="Attempts over which the failure rate of an oracle is taken."
    )
    pause_above: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Failure rate (1) over the window above which the oracle is paused.",
    )

    def of(self, kind: FailureKind) -> RetryConfig:
        policy = getattr(self, kind.value)
        assert isinstance(policy, RetryConfig)
        return policy


class VirtualConfig(Frame):
    """Replays: what evaluations take on a clock of their own, and how often they fail."""

    seconds: dict[str, float] = Field(
        default_factory=dict, description="Duration (s) of an evaluation by oracle; 1 where absent."
    )
    spread: float = Field(
        0.0, ge=0, description="Standard deviation of the logarithm of durations (1)."
    )
    failures: dict[str, Fraction] = Field(
        default_factory=dict, description="Share (1) of evaluations that fail, by oracle."
    )


class ExecutorConfig(Frame):
    use: Literal["ray", "serial", "virtual"] = "ray"
    virtual: VirtualConfig = Field(VirtualConfig(), description="Use virtual: for replays.")
    address: str | None = Field(
        None, description="Ray: address of a running cluster; a local one is started where absent."
    )
    host: str | None = Field(
        None,
        description="Ray that is started here: address of this machine for the jobs of run_on "
        "pilots, such as 10.0.0.5; that of its way to the internet where absent.",
    )
    cpus: int | None = Field(
        None, ge=1, description="Ray: cores of the local cluster; all of the machine by default."
    )
    gpus: float = Field(
        0.0, ge=0, description="Ray: GPUs requested by the worker that fits, trains and generates."
    )
    compute_limit: float = Field(
        21600.0,
        gt=0,
        description="Ray: longest time for one fit, generation, selection or training (s); a "
        "fresh worker then tries again, twice.",
    )
    object_store_bytes: int = Field(
        128 * 2**20, ge=80 * 2**20, description="Ray: memory of the local object store (bytes)."
    )
    dashboard: bool = Field(False, description="Ray: start its dashboard on loopback.")
    threads: int = Field(1, ge=1, description="Threads of the numerics in each worker.")


Url = Annotated[
    str, AfterValidator(check_password), PlainSerializer(without_password, return_type=str)
]
"""A URL that may hold a password; dumped without it."""


class TrackingConfig(Frame):
    use: Literal["mlflow", "none"] = "mlflow"
    uri: Url | None = Field(
        None, repr=False, description="MLflow tracking URI, or a folder; the campaign's by default."
    )
    experiment: str = "oreloop"
    figure_rounds: int = Field(
        10,
        ge=1,
        description="Figures and tables are written anew every so many rounds, later each "
        "tenth more, and at the end.",
    )
    weights: bool = Field(
        True,
        description="Published weights of trained generators become artifacts, with a card "
        "that tells of them.",
    )
    system_metrics: bool = Field(
        False,
        description="Load of processors, memory, disk, network and GPUs of the driver's "
        "machine, each 10 s.",
    )


Occasion = Literal["end", "pause", "drift", "new best"]


class NotificationsConfig(Frame):
    """Messages to people, by apprise."""

    to: tuple[str, ...] = Field(
        min_length=1,
        description="Names of environment variables, each with an address as apprise takes it: "
        "those may hold passwords.",
    )
    on: tuple[Occasion, ...] = Field(
        ("end", "pause", "drift", "new best"), min_length=1, description="What is told."
    )


class LedgerConfig(Frame):
    url: Url | None = Field(
        None,
        repr=False,
        description="SQLAlchemy URL of a PostgreSQL database; a SQLite file in the campaign "
        "folder by default. A password in it is kept "
        "out of all that is written: better leave it to PGPASSWORD or ~/.pgpass, which also "
        "serve where the folder is named.",
    )


class CampaignConfig(Frame):
    """A whole campaign."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the campaign and of its folder.",
    )
    seed: int = Field(0, ge=0)
    space: SpaceConfig
    objective: ObjectiveConfig
    further_objectives: tuple[ObjectiveConfig, ...] = Field(
        (), description="More quantities that the same oracle measures."
    )
    constraints: tuple[ConstraintConfig, ...] = ()
    mode: Literal["rounds", "streaming"] = Field(
        "streaming",
        description="rounds: a round begins when the last is labelled; streaming: as soon as a "
        "worker could run dry.",
    )
    budget: BudgetConfig
    stopping: StoppingConfig = StoppingConfig()
    initial_data: tuple[SourceConfig, ...] = ()
    candidate_pools: tuple[SourceConfig, ...] = ()
    generators: tuple[GeneratorConfig, ...] = ()
    screens: ScreensConfig = ScreensConfig()
    generator_shares: GeneratorSharesConfig | None = None
    surrogate: Component | None = None
    feasibility: Component | None = Field(
        None,
        description="Classifier of the chance that the oracle succeeds, learned from failures.",
    )
    acquisition: AcquisitionConfig = AcquisitionConfig()
    train_every: int = Field(
        1, ge=1, description="Rounds between trainings of the generators that learn."
    )
    committee: Component | None = Field(
        None, description="Models trained in the loop that query_by_committee asks."
    )
    oracles: tuple[OracleConfig, ...] = Field(min_length=1)
    fidelities: FidelitiesConfig | None = None
    references: ReferencesConfig | None = None
    known: KnownConfig | None = Field(
        None,
        description="A table of known crystals, for the report: what matches none of them is "
        "novel.",
    )
    phases: PhasesConfig | None = None
    sentinels: SentinelsConfig | None = None
    failure_policy: FailurePolicyConfig = FailurePolicyConfig()
    executor: ExecutorConfig = ExecutorConfig()
    tracking: TrackingConfig = TrackingConfig()
    notifications: NotificationsConfig | None = None
    ledger: LedgerConfig = LedgerConfig()

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return tuple(item.objective for item in (self.objective, *self.further_objectives))

    @property
    def search_space(self) -> SearchSpace:
        """The space with the constraints that the composition alone decides: no candidate outside
        of them is worth a label.
        """
        bounds = tuple(
            ValueBound(item.quantity, *item.bound)
            for item in self.constraints
            if item.quantity in abundance.KNOWN
        )
        return replace(self.space.space, rules=(*self.space.rules, *bounds))

    @property
    def modelled_constraints(self) -> tuple[ConstraintConfig, ...]:
        """Those that labels decide."""
        return tuple(item for item in self.constraints if item.quantity not in abundance.KNOWN)

    @property
    def modelled(self) -> tuple[str, ...]:
        """The quantities that acquisition weighs: of the objectives, then of the constraints that
        labels decide.
        """
        return tuple(
            dict.fromkeys(
                [
                    *(item.quantity for item in self.objectives),
                    *(item.quantity for item in self.modelled_constraints),
                ]
            )
        )

    @property
    def queues(self) -> dict[str, QueueConfig]:
        """Of the oracles whose labels are jobs of a batch queue, by name."""
        return {oracle.label: oracle.jobs for oracle in self.oracles if oracle.jobs is not None}

    @property
    def pilots(self) -> dict[str, QueueConfig]:
        """Of the oracles whose workers live in jobs of a batch queue, by name."""
        return {oracle.label: oracle.pilots for oracle in self.oracles if oracle.pilots is not None}

    @property
    def asks_model(self) -> bool:
        """Whether acquisition asks surrogates."""
        return self.surrogate is not None and self.acquisition.use not in ASKS_NO_SURROGATE

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> CampaignConfig:
        """Raises ValueError with all contradictions; whoever reports them with their places gathers
        them in the context.
        """
        found, gathered = problems(self), (info.context or {}).get("problems")
        if gathered is not None:
            gathered += found
        elif found:
            raise ValueError("; ".join(problem.message for problem in found))
        return self
