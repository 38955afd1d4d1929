"""The ports: what the loop asks of generators, surrogates, oracles, screens, executors and
trackers.

Each is small. An extra skill is a protocol of its own. ``rng`` is always passed in; nothing draws
from global state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from campaign.types import (
    Candidate,
    Checkpoint,
    Crystal,
    Evaluation,
    Fidelity,
    FloatArray,
    LabelledCandidate,
    Objective,
    Proposal,
    Quantity,
    SearchSpace,
    Verdict,
)

if TYPE_CHECKING:
    from botorch.models.model import Model
    from botorch.posteriors import Posterior
    from torch import Tensor


@dataclass(frozen=True)
class ModelledBound:
    """A quantity, by its model, has to be at least (sign +1) or at most (sign -1) a value."""

    surrogate: FittedSurrogate
    sign: int
    value: float


@dataclass(frozen=True, kw_only=True)
class GenerationContext:
    """What a generator may look at: the search space, the labels so far, the work under way, the
    model and its own last checkpoint.
    """

    space: SearchSpace
    objective: Objective
    labelled: Sequence[LabelledCandidate] = ()
    pending: Sequence[Candidate] = ()
    surrogate: FittedSurrogate | None = None
    further: tuple[tuple[Objective, FittedSurrogate], ...] = ()
    """Further objectives with their models."""
    bounds: tuple[ModelledBound, ...] = ()
    feasibility: FittedClassifier | None = None
    checkpoint: Checkpoint | None = None
    asked: int = 0
    """How many crystals the generator was asked for in earlier rounds, of those in which it
    proposed any.
    """


class Generator(Protocol):
    """Proposes crystals."""

    def generate(
        self, n: int, *, rng: np.random.Generator, context: GenerationContext
    ) -> Iterator[tuple[Crystal, Proposal]]:
        """Up to ``n`` crystals, each with its parents and condition; fewer where there are no more
        to propose.
        """
        ...


@runtime_checkable
class Trainable(Protocol):
    """A component that learns from labels."""

    def train(
        self,
        labelled: Sequence[LabelledCandidate],
        *,
        rng: np.random.Generator,
        context: GenerationContext,
    ) -> Checkpoint:
        """The state after learning from ``labelled``, starting from ``context.checkpoint`` where
        there is one.
        """
        ...

    def is_improvement(
        self,
        new: Checkpoint,
        old: Checkpoint | None,
        labelled: Sequence[LabelledCandidate],
        *,
        context: GenerationContext,
    ) -> tuple[bool, Mapping[str, float]]:
        """The gate: whether the new state is to be used, and the figures that say so."""
        ...


class TrainsLong(Protocol):
    """A component whose ``train`` takes further arguments, each by itself, for ``oreloop train``;
    in a campaign it gets none of them.
    """

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
        """``progress`` is told the steps done, all steps and a word on them; ``keep`` is given
        states from which training goes on where it gets one as ``begun``.
        """
        ...


@runtime_checkable
class NeedsLabels(Protocol):
    """A component that learns only once there are labels enough."""

    def is_ready(self, labelled: Sequence[LabelledCandidate]) -> bool:
        """Whether these labels are enough to be trained on."""
        ...


@runtime_checkable
class Committee(Trainable, NeedsLabels, Protocol):
    """Models trained in the loop on labels, whose disagreement tells which crystal is worth a
    label.
    """

    def disagreement(
        self, crystals: Sequence[Crystal], checkpoint: Checkpoint
    ) -> tuple[FloatArray, FloatArray]:
        """How much the members disagree on each crystal, in the unit of the thresholds of
        ``query_by_committee``.

        (n,) the largest of any of its atoms, which the thresholds are for; (n,) over the whole
        crystal, which ranks what is worth a label.
        """
        ...


class Screen(Protocol):
    """Drops what should not be labelled, with a reason."""

    def judge(self, candidate: Candidate, space: SearchSpace) -> Verdict:
        """Whether a candidate may be labelled, and why not."""
        ...


@runtime_checkable
class Costly(Protocol):
    """A screen that computes, so that it is asked in a campaign alone and not where a config is
    checked.
    """

    is_costly: bool


def is_costly(screen: Screen) -> bool:
    return isinstance(screen, Costly) and screen.is_costly


@runtime_checkable
class Embedder(Protocol):
    """Descriptor columns of crystals, for surrogates: from a formula, or from a model's weights."""

    is_worth_keeping: bool
    """Whether rows are kept by candidate id, as they take longer to make than to find."""

    @property
    def version(self) -> str:
        """A name for all that the columns depend on beside the crystal: settings, and the hash of a
        model's weights.
        """
        ...

    def columns(self, elements: Sequence[str]) -> list[str]:
        """Names of the columns for crystals of these elements, in their fixed order."""
        ...

    def embed(self, crystals: Sequence[Crystal], elements: Sequence[str]) -> FloatArray:
        """(n, d), one row per crystal."""
        ...


class FittedSurrogate(Protocol):
    """A trained model. ``model`` works on the columns of ``features``, in the quantity's own
    unit.
    """

    model: Model

    def features(self, candidates: Sequence[Candidate]) -> Tensor:
        """(n, d) descriptors, one row per candidate."""
        ...

    def posterior(self, candidates: Sequence[Candidate]) -> Posterior:
        """What is believed of candidates' values: joint, a row for each."""
        ...

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        """What the ledger records of the fit and the next fit may start from."""
        ...


class Surrogate(Protocol):
    """A model that can be fitted; fitting gives another type, so an untrained model cannot be
    asked.
    """

    def fit(
        self,
        candidates: Sequence[Candidate],
        values: FloatArray,
        *,
        previous: Mapping[str, Any] | None = None,
    ) -> FittedSurrogate:
        """Fit to values (n,) of n candidates, starting from the hyperparameters of an earlier fit
        where given.
        """
        ...


@runtime_checkable
class KnowsNoise(Protocol):
    """A surrogate that takes the stated noise of labels: a keyword ``noise`` of ``fit``, standard
    deviations (n,), 0 where a label states none; of ``fit_quantities`` and ``fit_levels`` the same
    by name, of those where any label states one. It is given where any label states noise.
    """

    knows_noise: ClassVar[Literal[True]]


@runtime_checkable
class MultiQuantity(Protocol):
    """A surrogate that models several quantities together."""

    def fit_quantities(
        self,
        labels: Mapping[str, tuple[Sequence[Candidate], FloatArray]],
        *,
        previous: Mapping[str, Any] | None = None,
    ) -> Mapping[str, FittedSurrogate]:
        """Fit to the labels (candidates, values (n,)) of each quantity; a model for each, the first
        with what the ledger records.
        """
        ...


class FittedClassifier(Protocol):
    """A trained model of the chance that an oracle succeeds."""

    def probability(self, candidates: Sequence[Candidate]) -> FloatArray:
        """(n,) between 0 and 1."""
        ...

    @property
    def hyperparameters(self) -> Mapping[str, Any]: ...


class Classifier(Protocol):
    """Learns from successes and failures."""

    def fit_outcomes(
        self, succeeded: Sequence[Candidate], failed: Sequence[Candidate]
    ) -> FittedClassifier: ...


class FittedLevels(FittedSurrogate, Protocol):
    """A trained model of several levels; ``features`` and ``posterior`` of candidates are at the
    highest.
    """

    def features_at(self, candidates: Sequence[Candidate], level: int) -> Tensor:
        """(n, d) at a level, 0 the cheapest."""
        ...


@runtime_checkable
class MultiFidelity(Protocol):
    """A surrogate that models several levels at once, for choice by gain per cost."""

    def fit_levels(
        self,
        labels: Mapping[str, tuple[Sequence[Candidate], FloatArray]],
        *,
        previous: Mapping[str, Any] | None = None,
    ) -> FittedLevels:
        """Fit to the labels (candidates, values (n,)) of each level, the cheapest first."""
        ...


@runtime_checkable
class Oracle(Protocol):
    """Labels a crystal. Exceptions that it raises become failures of kind ``crash`` in the
    worker.
    """

    quantities: tuple[Quantity, ...]

    def evaluate(self, crystal: Crystal) -> Evaluation:
        """Observations of the quantities, or a failure."""
        ...


@runtime_checkable
class EvaluatesMany(Protocol):
    """An oracle that labels several crystals in less time together than one by one. A worker gives
    it as many as ``batch`` says.
    """

    def evaluate_many(self, crystals: Sequence[Crystal]) -> Iterator[tuple[int, Evaluation]]:
        """Each crystal's index with its evaluation, in the order in which they are ready.

        A failure is one crystal's own. Crystals that are left when it ends or raises are evaluated
        one by one.
        """
        ...


@runtime_checkable
class HasFidelity(Protocol):
    """An oracle that states which of its settings change what a label means."""

    @property
    def fidelity(self) -> Fidelity:
        """The level of theory, with the settings that change what a label means."""
        ...


@runtime_checkable
class RelaxesVolume(Protocol):
    """An oracle that says whether crystals that differ in volume alone get one label, as it relaxes
    the volume first.
    """

    @property
    def relaxes_volume(self) -> bool: ...


@runtime_checkable
class HasElements(Protocol):
    """An oracle that knows only some elements."""

    @property
    def elements(self) -> frozenset[str]:
        """Their symbols."""
        ...


@runtime_checkable
class WaitsForPeople(Protocol):
    """An oracle that people answer: an evaluation may take as long as it takes, unless the config
    limits it.
    """

    waits_for_people: bool


@runtime_checkable
class HasTrial(Protocol):
    """An oracle that can be tried in seconds before anything is paid for."""

    def trial(self, elements: Sequence[str]) -> None:
        """Raises InputError where it does not work here, or not for crystals of these elements."""
        ...


class HasEnergyZero(Protocol):
    """An oracle that states what its energies count from: ``free atoms`` lets ``oracle check`` find
    energies in another unit.
    """

    energy_zero: str


@runtime_checkable
class AsksCommittee(Protocol):
    """An oracle whose model may be the campaign's committee.

    It gets the first that is published, and keeps it, so that its labels are of one level of
    theory.
    """

    @property
    def asks_committee(self) -> bool:
        """Whether it labels nothing before ``load``."""
        ...

    def load(self, committee: Checkpoint) -> None: ...


def asks_committee(oracle: Oracle) -> bool:
    return isinstance(oracle, AsksCommittee) and oracle.asks_committee


@dataclass(frozen=True, kw_only=True)
class PluginSpec:
    """How a worker builds a component: the group, the name or ``module:Class``, its parameters, and
    where user modules lie.

    ``elements`` are those of the search space; settings see them and the folder in pydantic's
    validation context. ``python``: the words of the command that starts the interpreter it lives
    in, for an oracle; this one where there are none.
    """

    group: str
    use: str
    params: Mapping[str, Any] = field(default_factory=dict)
    module_folder: str | None = None
    elements: tuple[str, ...] = ()
    python: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OracleSpec:
    """An oracle with its pool of workers. Limits in seconds; memory in bytes (0: not requested);
    ``sanity`` windows by quantity.

    ``fidelity`` is the key that the worker's oracle must have (empty: any), ``code`` what oreloop
    and the engines must be there (empty: anything), as ``campaign.code.of_oreloop`` says it;
    ``seed`` is the campaign's.
    """

    name: str
    plugin: PluginSpec
    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0
    wall_limit: float = 600.0
    start_limit: float = 120.0
    sanity: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    fidelity: str = ""
    code: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """One attempt at one label. ``key`` is made of its content; ``softer`` are parameters that this
    attempt overrides.

    ``start``: the crystal that the oracle gets where it is another one than the candidate's, such
    as a relaxed one. ``committee``: the checkpoint, as bytes, of an oracle that asks the campaign's
    committee. ``alone``: on a fresh worker that nothing else ran on, so that a death of the worker
    is the candidate's own doing.
    """

    key: str
    oracle: str
    candidate: Candidate
    attempt: int = 0
    softer: Mapping[str, Any] = field(default_factory=dict)
    start: Crystal | None = None
    committee: bytes | None = None
    alone: bool = False


@dataclass(frozen=True)
class FinishedJob:
    job: EvaluationJob
    evaluation: Evaluation


class ReadsCrystals(Protocol):
    """Where crystals are stored."""

    def crystals(self, identities: Sequence[str]) -> list[Crystal]: ...

    def blobs(self, identities: Sequence[str]) -> Mapping[str, bytes]:
        """The same as stored bytes, by id."""
        ...


@dataclass(frozen=True)
class Stored:
    """Crystals as an argument of a computation, which gets a list of them. Those that its worker
    was sent before are not read again.
    """

    ids: tuple[str, ...]
    reader: ReadsCrystals


@dataclass(frozen=True)
class Kept:
    """What a computation returns whose value only later computations need, and not the loop, which
    is told something else of it.
    """

    value: Any
    told: Any = None


class Handle(Protocol):
    """A computation under way or done."""

    def is_done(self) -> bool: ...

    def result(self) -> Any:
        """The value; waits for it. Raises what the computation raised."""
        ...


class Executor(Protocol):
    """Runs evaluations on pools of oracle workers, and computations beside the loop.

    A result that is there counts before any limit; limits are in seconds in which the process that
    watches them was awake. A worker that dies by a signal from outside is a failure of kind
    ``infrastructure``, one that brings its end upon itself of kind ``crash``; the next job finds a
    worker in its place. What a worker started ends with it.
    """

    def start(self, oracles: Sequence[OracleSpec]) -> None: ...

    def free_workers(self, oracle: str) -> int:
        """How many workers would take jobs right now, without these waiting behind others."""
        ...

    def submit(self, *jobs: EvaluationJob) -> None:
        """Give jobs of one oracle, with the same settings, to one free worker.

        It has as many wall limits for several. Where it dies or takes too long over them, those
        without an answer are tried one by one, so that the one to blame fails alone.
        """
        ...

    def wait(self, timeout: float, handle: Handle | None = None) -> list[FinishedJob]:
        """Jobs that finished, after at most ``timeout`` seconds; returns early when ``handle`` is
        done.

        Raises SurroundingsError where workers cannot be started.
        """
        ...

    def compute(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        """Run a function on the compute worker. Arguments that are handles of earlier computations
        arrive as their values, ``Stored`` ones as crystals. Computations that are asked for before
        the next ``wait`` may be done together.

        The function depends on its arguments alone, as it runs again where its worker died. What it
        raises, ``result`` raises.
        """
        ...

    def shutdown(self) -> None: ...


@runtime_checkable
class OutlivesDriver(Protocol):
    """An executor some of whose jobs go on when the driver ends, and are there for the next one."""

    def take_up(self, jobs: Sequence[EvaluationJob]) -> list[EvaluationJob]:
        """Wait again for those of the jobs that an earlier driver began, which are returned; cancel
        whatever else it began.
        """
        ...

    def not_begun(self) -> list[EvaluationJob]:
        """Those that are waited for and have not begun, as far as is known."""
        ...

    def withdraw(self, keys: Collection[str]) -> None:
        """Cancel jobs, by their keys, and wait for them no more."""
        ...

    def let_go(self, *, is_wanted: bool) -> list[EvaluationJob]:
        """Wait no more for the jobs that are returned; they go on where they are wanted later, else
        those that have not begun are cancelled, and those that have are waited for.
        """
        ...


@runtime_checkable
class RunsTasks(Protocol):
    """An executor that runs functions side by side, for studies."""

    def start(self, oracles: Sequence[OracleSpec]) -> None: ...

    def run_all(
        self,
        function: Callable[..., Any],
        calls: Sequence[tuple[Any, ...]],
        *,
        cpus: float,
        gpus: float,
    ) -> list[Any]:
        """What each call returns, in their order; the exception where one raised."""
        ...

    def shutdown(self) -> None: ...


class Tracker(Protocol):
    """A view of the ledger kept elsewhere. Never slows or stops a campaign."""

    def start(self) -> None: ...

    def update(self) -> None:
        """Log what the ledger has and the tracker has not."""
        ...

    def finish(self) -> None: ...
