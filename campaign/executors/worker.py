"""What runs inside a worker process: an oracle behind a wall that no exception crosses, and
computations.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from campaign import plugins
from campaign.blame import told
from campaign.checkpoints import checkpoint_from_bytes
from campaign.code import check_of_oreloop
from campaign.errors import OreloopError, SurroundingsError
from campaign.executors import sanity
from campaign.protocols import AsksCommittee, EvaluatesMany, EvaluationJob, Kept, Oracle, OracleSpec
from campaign.seeds import library_seeds, seed_sequence
from campaign.types import Cost, Crystal, Evaluation, FailureKind


def limit_threads(threads: int) -> None:
    """Fix the thread count of the numerics in this process; called before they are imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


_SURROUNDINGS = frozenset(
    {
        *(
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EROFS,
            errno.EIO,
            errno.EREMOTEIO,
            errno.ESTALE,
            errno.ENOLCK,
        ),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    }
)
"""Errors of the system that no candidate causes: disks full, read-only, broken or away, no file
handles, no memory, no network.
"""
_TOLD = re.compile(
    "|".join(
        re.escape(os.strerror(number)) for number in _SURROUNDINGS - {errno.ENOMEM, errno.EAGAIN}
    ),
    re.IGNORECASE,
)
"""The same in the words of engines that hand on no error of the system, where a large candidate is
not to blame either.
"""

_TOLD_BY_ENGINES = (FailureKind.CRASH, FailureKind.NOT_CONVERGED)


def is_of_the_surroundings(error: BaseException) -> bool:
    """Whether the machine is at fault, not the candidate; wrapping the error in another one does
    not hide that.
    """
    return any(
        isinstance(cause, SurroundingsError)
        or (isinstance(cause, OSError) and cause.errno in _SURROUNDINGS)
        or _TOLD.search(str(cause)) is not None
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [cause.__cause__, cause.__context__]


class OracleWorker:
    """Holds an oracle for its life, so that engines start once; other settings for a retry make a
    second instance.
    """

    def __init__(self, spec: OracleSpec, name: str, threads: int) -> None:
        limit_threads(threads)
        self._spec, self._name = spec, name
        check_of_oreloop(spec.code, f"a worker of oracle {spec.name}")
        with library_seeds(self._stream("build")):
            oracle: Oracle = plugins.build(spec.plugin)
        found = plugins.fidelity_of(oracle, spec.plugin).key
        if spec.fidelity and found != spec.fidelity:
            raise SurroundingsError(
                f"oracle {spec.name} measures {found} in its worker, the campaign's labels are "
                f"{spec.fidelity}",
                hint="a file or package that the labels depend on differs from when the driver "
                "started, or between machines",
            )
        self._oracles: dict[str, tuple[Oracle, str]] = {"": (oracle, found)}
        self._committees: dict[str, bytes] = {}

    def is_ready(self) -> bool:
        return True

    def evaluate_many(self, jobs: Sequence[EvaluationJob]) -> Iterator[tuple[str, Evaluation]]:
        """Each job's key and evaluation, as they are ready; what several take together is shared
        out evenly while they are under way.
        """
        left = {job.key: job for job in jobs}
        clock = _SharedCost(self._name)
        if len(jobs) > 1:
            with contextlib.suppress(Exception):
                for job, evaluation in self._together(jobs):
                    del left[job.key]
                    yield job.key, replace(evaluation, cost=clock.share(1 + len(left)))
        before = clock.share(max(1, len(left)))
        for job in left.values():
            yield job.key, _with_earlier(self.evaluate(job), before)

    def _together(
        self, jobs: Sequence[EvaluationJob]
    ) -> Iterator[tuple[EvaluationJob, Evaluation]]:
        """Nothing where the oracle takes one crystal at a time; what it raises tells nothing of any
        one crystal.
        """
        oracle, fidelity = self._oracle(jobs[0])
        if not isinstance(oracle, EvaluatesMany):
            return
        crystals = [job.start or job.candidate.crystal for job in jobs]
        with library_seeds(self._stream("/".join(job.key for job in jobs))):
            for index, answer in oracle.evaluate_many(crystals):
                yield (
                    jobs[index],
                    replace(self._believed(answer, crystals[index], oracle), fidelity=fidelity),
                )

    def _stream(self, key: str) -> int:
        return int(seed_sequence(f"{self._spec.seed}/{key}").generate_state(1)[0])

    def evaluate(self, job: EvaluationJob) -> Evaluation:
        """The oracle's evaluation with its cost; an exception becomes a failure that tells where it
        came from.
        """
        clock = _SharedCost(self._name)
        try:
            crystal = job.start or job.candidate.crystal
            oracle, fidelity = self._oracle(job)
            with library_seeds(self._stream(job.key)):
                answer: object = oracle.evaluate(crystal)
            evaluation = replace(self._believed(answer, crystal, oracle), fidelity=fidelity)
        except MemoryError:
            evaluation = Evaluation.failed(
                FailureKind.OUT_OF_MEMORY, "the oracle ran out of memory"
            )
        except Exception as error:
            kind = (
                FailureKind.INFRASTRUCTURE if is_of_the_surroundings(error) else FailureKind.CRASH
            )
            evaluation = Evaluation.failed(kind, told(error))
        return replace(evaluation, cost=clock.share(1))

    def _believed(self, answer: object, crystal: Crystal, oracle: Oracle) -> Evaluation:
        if not isinstance(answer, Evaluation):
            message = (
                f"the oracle returned {type(answer).__name__}, expected campaign.types.Evaluation"
            )
            return Evaluation.failed(FailureKind.CRASH, message, retryable=False)
        failure = sanity.check(answer, crystal, oracle.quantities, self._spec.sanity)
        if (
            failure is not None
            and failure.kind in _TOLD_BY_ENGINES
            and _TOLD.search(failure.message)
        ):
            failure = replace(failure, kind=FailureKind.INFRASTRUCTURE, retryable=True)
        return answer if failure is None else Evaluation(failure=failure)

    def _oracle(self, job: EvaluationJob) -> tuple[Oracle, str]:
        """The oracle with this attempt's softer settings, and its fidelity: some of them change
        what its label means.
        """
        plugin = self._spec.plugin
        softer = plugins.known_settings(plugin, job.softer)
        which = repr(sorted(softer.items())) if softer else ""
        if which not in self._oracles:
            changed = replace(plugin, params={**plugin.params, **softer})
            with library_seeds(self._stream("build")):
                oracle: Oracle = plugins.build(changed)
            self._oracles[which] = oracle, plugins.fidelity_of(oracle, changed).key
        found, fidelity = self._oracles[which]
        if job.committee is not None and self._committees.get(which) != job.committee:
            assert isinstance(found, AsksCommittee)
            found.load(checkpoint_from_bytes(job.committee))
            self._committees[which] = job.committee
        return found, fidelity


_crystals: dict[str, Crystal] = {}
"""What this process was sent of the ledger's crystals."""


def known_crystal(identity: str) -> Crystal:
    return _crystals[identity]


def known_crystals(identities: Sequence[str]) -> list[Crystal]:
    return [_crystals[identity] for identity in identities]


@dataclass(frozen=True)
class Value:
    """In the place of the value of an earlier computation, by its number."""

    number: int


@dataclass(frozen=True)
class Task:
    """A computation, by its number."""

    number: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Message:
    """What a compute worker has to do: ``tasks`` as bytes, which name crystals by id; crystals that
    are new to it; what it may forget.
    """

    tasks: bytes
    crystals: Mapping[str, bytes]
    forgotten: Sequence[str]
    dropped: Sequence[int]


@dataclass(frozen=True)
class Outcome:
    """What a computation tells, or what it raised, and the seconds that it took."""

    value: Any
    error: Exception | None
    seconds: float


class _SharedCost:
    """What work costs each of those for whom it is done: equal parts of the time that it takes
    while they are under way.
    """

    def __init__(self, worker: str) -> None:
        self._worker, self._started = worker, time.time()
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._wall_each = self._cpu_each = 0.0

    def share(self, n: int) -> Cost:
        """The part, from the beginning, of one of those of whom ``n`` were under way since the last
        was told.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        self._wall_each += (wall - self._wall) / n
        self._cpu_each += (cpu - self._cpu) / n
        self._wall, self._cpu = wall, cpu
        return Cost(
            wall_seconds=self._wall_each,
            cpu_seconds=self._cpu_each,
            started=self._started,
            worker=self._worker,
        )


def _with_earlier(evaluation: Evaluation, earlier: Cost) -> Evaluation:
    cost = evaluation.cost
    wall, cpu = earlier.wall_seconds + cost.wall_seconds, earlier.cpu_seconds + cost.cpu_seconds
    return replace(evaluation, cost=replace(cost, wall_seconds=wall, cpu_seconds=cpu))


class ComputeWorker:
    """Runs functions one after another beside the loop: fits, generation, selection, training.
    Their values stay until they are dropped.
    """

    def __init__(self, threads: int) -> None:
        limit_threads(threads)
        self._threads = threads
        self._values: dict[int, Any] = {}
        self._errors: dict[int, Exception] = {}

    def perform(self, function: Callable[..., Any], *arguments: Any) -> Any:
        import torch

        torch.set_num_threads(self._threads)
        return function(*arguments)

    def answer(self, message: bytes) -> list[bytes]:
        """The outcomes, each as bytes, of a message's tasks."""
        asked: Message = pickle.loads(message)  # noqa: S301
        for number in asked.dropped:
            self._values.pop(number, None)
            self._errors.pop(number, None)
        for identity in asked.forgotten:
            _crystals.pop(identity, None)
        _crystals.update(
            (identity, Crystal.from_bytes(data)) for identity, data in asked.crystals.items()
        )
        return [self._outcome(task) for task in pickle.loads(asked.tasks)]  # noqa: S301

    def _outcome(self, task: Task) -> bytes:
        began = time.perf_counter()
        try:
            self._values[task.number] = value = self.perform(
                task.function, *map(self._resolved, task.arguments)
            )
            told = value.told if isinstance(value, Kept) else value
            return pickle.dumps(
                Outcome(told, None, time.perf_counter() - began), protocol=pickle.HIGHEST_PROTOCOL
            )
        except Exception as error:
            self._errors[task.number] = error
            return pickle.dumps(Outcome(None, _portable(error), 0.0))

    def _resolved(self, argument: Any) -> Any:
        if not isinstance(argument, Value):
            return argument
        if argument.number in self._errors:
            raise self._errors[argument.number]
        return kept_value(self._values[argument.number])


def kept_value(value: Any) -> Any:
    """Of what a function returned: what later computations get."""
    return value.value if isinstance(value, Kept) else value


def _portable(error: Exception) -> Exception:
    """An error with where it came from, as bytes can hold it."""
    if not isinstance(error, OreloopError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
