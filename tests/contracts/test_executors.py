"""What every executor must keep: the same jobs and computations on each, and the same ends."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from scripted_oracle import add, hidden, ids_of, once, refuse
from support import HELPERS

from campaign import interpreters
from campaign.config.schema import ExecutorConfig
from campaign.errors import InputError, OreloopError, SurroundingsError
from campaign.executors import make_executor
from campaign.executors.leftovers import is_alive
from campaign.plugins import ParameterError
from campaign.protocols import EvaluationJob, Executor, OracleSpec, PluginSpec, Stored
from campaign.types import Candidate, Crystal, Evaluation, FailureKind

LIMIT = 3.0
ALL = ("serial", "virtual", "ray")
IN_PROCESSES = ("serial", "ray")


class Bench:
    """An executor with one worker of the scripted oracle, and candidates for it, each with its
    note.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        plugin = PluginSpec(
            group="oracles",
            use="scripted_oracle:Scripted",
            params={"folder": str(folder)},
            module_folder=str(HELPERS),
        )
        self.spec = OracleSpec(
            name="scripted", plugin=plugin, cpus=0.5, wall_limit=LIMIT, start_limit=30
        )
        config = ExecutorConfig(use=name, cpus=2, compute_limit=4.0)
        self.executor: Executor = make_executor(
            config, module_folder=HELPERS if name == "ray" else None
        )
        self.executor.start([self.spec])
        self._numbers = itertools.count()

    def job(self, note: str, **changes: Any) -> EvaluationJob:
        number = next(self._numbers)
        crystal = Crystal([[3.0 + 0.01 * number, 0, 0], [0, 3, 0], [0, 0, 3]], [[0, 0, 0]], [28])
        (self.folder / crystal.id).write_text(note)
        return EvaluationJob(
            key=f"job/{number}", oracle="scripted", candidate=Candidate(crystal), **changes
        )

    def submit(self, *jobs: EvaluationJob) -> None:
        deadline = time.monotonic() + 40
        while not self.executor.free_workers("scripted"):
            assert time.monotonic() < deadline, "no worker is free"
            assert not self.executor.wait(0.2)
        self.executor.submit(*jobs)

    def collect(self, seconds: float = 40) -> Evaluation:
        deadline = time.monotonic() + seconds
        while not (finished := self.executor.wait(0.2)):
            assert time.monotonic() < deadline, "the job neither ended nor failed"
        (one,) = finished
        return one.evaluation

    def together(self, *notes: str, during: Callable[[], None] = lambda: None) -> list[Evaluation]:
        """Evaluations of crystals that go to one worker, in their order."""
        jobs = [self.job(note) for note in notes]
        self.submit(*jobs)
        during()
        found: dict[str, Evaluation] = {}
        deadline = time.monotonic() + 60
        while len(found) < len(jobs):
            assert self.executor.free_workers("scripted") == 0, "the worker has jobs"
            assert time.monotonic() < deadline, "jobs neither ended nor failed"
            for item in self.executor.wait(0.2):
                assert item.job.key not in found
                found[item.job.key] = item.evaluation
        assert self.executor.wait(0.0) == []
        return [found[job.key] for job in jobs]

    def label(self, note: str = "", **changes: Any) -> Evaluation:
        self.submit(self.job(note, **changes))
        return self.collect()

    def children(self) -> list[int]:
        path = self.folder / "children"
        found = [int(line) for line in path.read_text().split()]
        path.unlink()
        return found


class Benches:
    """Those under way: an executor serves many tests. Ray can be there once in a process."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory, self._made = factory, dict[str, Bench]()

    def get(self, name: str) -> Bench:
        if name not in self._made:
            self._made[name] = Bench(name, self._factory.mktemp(name))
        return self._made[name]

    def close(self) -> None:
        for name in list(self._made):
            self._made.pop(name).executor.shutdown()


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Benches]:
    made = Benches(tmp_path_factory)
    yield made
    made.close()


@pytest.fixture
def bench(request: pytest.FixtureRequest, benches: Benches) -> Bench:
    return benches.get(request.param)


on_all = pytest.mark.parametrize("bench", ALL, indirect=True)
in_processes = pytest.mark.parametrize("bench", IN_PROCESSES, indirect=True)


def failure(evaluation: Evaluation) -> tuple[FailureKind, str]:
    assert evaluation.failure is not None
    return evaluation.failure.kind, evaluation.failure.message


def alive(pids: list[int]) -> list[int]:
    """Those of the processes that live, after a while for their end."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    deadline = time.monotonic() + 5
    while any(is_alive(process) for process in found) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [process.pid for process in found if is_alive(process)]


# --- evaluations
# ------------------------------------------------------------


@on_all
def test_a_job_takes_a_worker_until_it_is_collected(bench: Bench) -> None:
    job = bench.job("")
    bench.submit(job)
    assert bench.executor.free_workers("scripted") == 0
    evaluation = bench.collect()
    assert evaluation.failure is None
    assert evaluation.cost.wall_seconds > 0
    assert (
        abs(
            evaluation.cost.started
            - (bench.executor.clock - 1 if bench.name == "virtual" else time.time())
        )
        < 20
    )  # type: ignore[attr-defined]
    bench.submit(bench.job(""))
    assert bench.collect().value("answer") > evaluation.value("answer"), (
        "the worker keeps its oracle"
    )


@on_all
@pytest.mark.parametrize(
    "note", [f"errno {errno.ENOSPC}", f"errno {errno.EMFILE}", f"errno {errno.ESTALE}", "wrapped"]
)
def test_what_the_machine_is_to_blame_for_is_no_crash(bench: Bench, note: str) -> None:
    assert failure(bench.label(note))[0] is FailureKind.INFRASTRUCTURE


@on_all
def test_engines_that_tell_of_a_full_disk_in_words_are_understood(bench: Bench) -> None:
    for note in (
        "raise ERROR: cannot write dump: No space left on device (src/x.cpp:1)",
        "fail OSError: [Errno 122] Disk quota exceeded",
    ):
        assert failure(bench.label(note))[0] is FailureKind.INFRASTRUCTURE


@on_all
def test_an_exception_is_a_crash_that_tells_what_it_was(bench: Bench) -> None:
    kind, message = failure(bench.label("raise it broke"))
    assert kind is FailureKind.CRASH
    assert message.startswith("RuntimeError: it broke (scripted_oracle.py, line ")
    assert failure(bench.label(f"errno {errno.ENOENT}"))[0] is FailureKind.CRASH


@in_processes
@pytest.mark.parametrize(
    ("note", "kind"),
    [
        ("exit 13", FailureKind.CRASH),
        (f"signal {int(signal.SIGSEGV)}", FailureKind.CRASH),
        (f"signal {int(signal.SIGABRT)}", FailureKind.CRASH),
        (f"signal {int(signal.SIGKILL)}", FailureKind.INFRASTRUCTURE),
        (f"signal {int(signal.SIGTERM)}", FailureKind.INFRASTRUCTURE),
    ],
)
def test_who_killed_a_worker_decides_whose_fault_it_is(
    bench: Bench, note: str, kind: FailureKind
) -> None:
    found, message = failure(bench.label(note))
    assert found is kind
    assert "the worker died" in message
    assert bench.label().value("answer") == 1, "a fresh worker goes on"


@in_processes
def test_a_death_alone_on_a_fresh_worker_is_the_candidates_own(bench: Bench) -> None:
    kind, message = failure(bench.label(f"signal {int(signal.SIGKILL)}", alone=True))
    assert kind is FailureKind.CRASH
    assert "alone on a fresh worker" in message


@on_all
def test_alone_means_a_fresh_worker(bench: Bench) -> None:
    for _ in range(2):
        answer = bench.label("", alone=True).value("answer")
        assert answer == 1 or bench.name == "virtual"


@in_processes
def test_a_job_past_its_limit_is_a_timeout_and_leaves_no_process(bench: Bench) -> None:
    evaluation = bench.label("children 100")
    assert failure(evaluation) == (
        FailureKind.TIMEOUT,
        f"no answer within {LIMIT:g} s; the worker was killed",
    )
    assert LIMIT <= evaluation.cost.wall_seconds < LIMIT + 3
    assert alive(bench.children()) == []


@in_processes
def test_a_worker_that_dies_leaves_no_process(bench: Bench) -> None:
    bench.label()
    bench.submit(bench.job("children 100"))
    while (
        not (bench.folder / "children").exists()
        or len((bench.folder / "children").read_text().split()) < 2
    ):
        bench.executor.wait(0.02)
    children = bench.children()
    os.kill(psutil.Process(children[0]).ppid(), signal.SIGKILL)
    assert failure(bench.collect())[0] is FailureKind.INFRASTRUCTURE
    assert alive(children) == []


@in_processes
def test_a_ready_result_beats_its_limit(bench: Bench) -> None:
    """Also where nobody looked for longer than the limit."""
    bench.label()
    bench.submit(bench.job("sleep 0.2"))
    time.sleep(0.05)
    bench.executor.wait(0.0)
    time.sleep(LIMIT + 1)
    assert bench.collect().failure is None


# --- several at once
# ------------------------------------------------------------


@on_all
def test_several_at_once_have_an_answer_each(bench: Bench) -> None:
    began = time.monotonic()
    found = bench.together("", "fail it is bad", "", "sleep 0.3")
    taken = time.monotonic() - began
    answers = [evaluation.value("answer") for evaluation in (found[3], found[2], found[0])]
    assert answers == sorted(answers), "they come in the order in which they are ready"
    assert failure(found[1]) == (FailureKind.CRASH, "it is bad")
    if bench.name != "virtual":
        costs = [evaluation.cost for evaluation in found]
        assert 0.25 < sum(cost.wall_seconds for cost in costs) <= taken, (
            "what they took together is shared out"
        )
        assert all(cost.wall_seconds > 0.07 for cost in costs), (
            "all were under way while the last slept"
        )
        assert len({cost.started for cost in costs}) == 1


@on_all
def test_a_pass_that_raises_is_no_ones_failure(bench: Bench) -> None:
    found = bench.together("", "together raise", "")
    assert [evaluation.failure for evaluation in found] == [None] * 3


@on_all
def test_the_one_that_raises_fails_alone(bench: Bench) -> None:
    first, broken, last = bench.together("", "raise it broke", "")
    assert first.failure is None
    assert last.failure is None
    assert failure(broken)[1].startswith("RuntimeError: it broke")


@in_processes
@pytest.mark.parametrize(
    ("note", "kind"),
    [
        ("exit 13", FailureKind.CRASH),
        (f"signal {int(signal.SIGSEGV)}", FailureKind.CRASH),
        (f"signal {int(signal.SIGKILL)}", FailureKind.INFRASTRUCTURE),
        ("sleep 100", FailureKind.TIMEOUT),
        (f"together {int(signal.SIGKILL)}", None),
        (f"together {int(signal.SIGSEGV)}", None),
    ],
)
def test_the_one_that_ends_the_worker_fails_alone(
    bench: Bench, note: str, kind: FailureKind | None
) -> None:
    began = time.monotonic()
    found = bench.together("", note, "")
    kinds = [
        evaluation.failure.kind if evaluation.failure is not None else None for evaluation in found
    ]
    assert kinds == [None, kind, None]
    taken = time.monotonic() - began
    assert sum(evaluation.cost.wall_seconds for evaluation in found) <= taken
    if kind is FailureKind.TIMEOUT:
        assert found[1].cost.wall_seconds > LIMIT + LIMIT, (
            "its own limit, and its part of what all had"
        )
        assert sum(evaluation.cost.wall_seconds for evaluation in found) > 0.9 * (
            3 * LIMIT + LIMIT
        ), "lost time is booked"


@in_processes
def test_who_is_left_of_a_killed_pass_is_done_again(bench: Bench) -> None:
    bench.label()

    def kill() -> None:
        while (
            not (bench.folder / "children").exists()
            or len((bench.folder / "children").read_text().split()) < 2
        ):
            bench.executor.wait(0.02)
        os.kill(psutil.Process(bench.children()[0]).ppid(), signal.SIGKILL)

    found = bench.together("", "once", during=kill)
    assert [evaluation.failure for evaluation in found] == [None, None]
    while not (bench.folder / "children").exists():
        time.sleep(0.05)
    assert alive(bench.children()) != []


@in_processes
def test_ready_results_of_several_beat_their_limit(bench: Bench) -> None:
    bench.label()
    jobs = [bench.job("sleep 0.1") for _ in range(2)]
    bench.submit(*jobs)
    time.sleep(0.05)
    early = bench.executor.wait(0.0)
    time.sleep(2 * LIMIT + 0.5)
    found = [*early, *bench.executor.wait(0.2)]
    while len(found) < 2:
        found += bench.executor.wait(0.2)
    assert [item.evaluation.failure for item in found] == [None, None]


# --- computations
# ------------------------------------------------------------


@on_all
def test_handles_are_arguments(bench: Bench) -> None:
    one = bench.executor.compute(add, 1, 2)
    two = bench.executor.compute(add, one, 10)
    assert bench.executor.compute(add, one, two).result() == 16
    assert one.result() == 3
    assert two.is_done()


@on_all
@pytest.mark.parametrize(
    "error",
    [
        InputError("a bad file", hint="mend it"),
        ParameterError("gp", [(("kernel",), "no such kernel")], ("kernel",)),
        ZeroDivisionError("x"),
    ],
)
def test_what_a_computation_raises_its_handle_raises(bench: Bench, error: Exception) -> None:
    handle = bench.executor.compute(refuse, error)
    later = bench.executor.compute(add, handle, 1)
    for one in (handle, later):
        with pytest.raises(type(error)) as caught:
            one.result()
        assert str(caught.value) == str(error)
        if isinstance(error, OreloopError):
            assert vars(caught.value) == vars(error)
    assert bench.executor.compute(add, 1, 1).result() == 2


@on_all
def test_a_kept_value_goes_to_later_computations_and_not_to_the_loop(bench: Bench) -> None:
    kept = bench.executor.compute(hidden, 20)
    later = bench.executor.compute(add, kept, 1)
    assert later.result() == 21
    assert (kept.result() == os.getpid()) == (bench.name != "ray")
    assert bench.executor.compute(add, kept, 2).result() == 22, "also once it is done"


class Shelf:
    """Crystals by id, and how often each was asked for."""

    def __init__(self, crystals: list[Crystal]) -> None:
        self._crystals = {crystal.id: crystal for crystal in crystals}
        self.asked: Counter[str] = Counter()

    def crystals(self, identities: Sequence[str]) -> list[Crystal]:
        self.asked.update(identities)
        return [self._crystals[identity] for identity in identities]

    def blobs(self, identities: Sequence[str]) -> dict[str, bytes]:
        self.asked.update(identities)
        return {identity: self._crystals[identity].to_bytes() for identity in identities}


@on_all
def test_stored_crystals_arrive_as_crystals_whatever_was_sent_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order asked, also where the worker was told to forget them, or is another one; sent
    again only then.
    """
    monkeypatch.setattr("campaign.executors.computing._KEPT_CRYSTALS", 4)
    crystals = [Crystal(np.eye(3) * (3 + 0.1 * n), [[0, 0, 0]], [28]) for n in range(8)]
    ids = [crystal.id for crystal in crystals]
    shelf = Shelf(crystals)
    for wanted in ([0, 1], [1, 0, 1], [2, 3, 4, 5, 6], [0, 6], [7, 0]):
        stored = Stored(tuple(ids[n] for n in wanted), shelf)
        assert bench.executor.compute(ids_of, stored, crystals[7]).result() == [
            ids[n] for n in (*wanted, 7)
        ]
    if bench.name == "ray":
        assert shelf.asked[ids[1]] == shelf.asked[ids[6]] == 1
        assert shelf.asked[ids[0]] == 2
        for process in psutil.Process().children(recursive=True):
            if "ray::ComputeWorker" in "".join(process.cmdline()):
                process.kill()
        assert bench.executor.compute(ids_of, Stored((ids[6],), shelf), crystals[0]).result() == [
            ids[6],
            ids[0],
        ]


@pytest.mark.parametrize("bench", ["ray"], indirect=True)
def test_what_is_done_quickly_is_done_in_one_call(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that took long the last time goes by itself, so that nothing waits for it."""
    computations: Any = vars(bench.executor)["_computations"]
    bench.executor.compute(add, 1).result()
    sent: list[int] = []
    send = computations._send
    monkeypatch.setattr(
        computations, "_send", lambda handles: (sent.append(len(handles)), send(handles))
    )
    for seconds, together in ((0.0, 5), (5.0, 1)):
        computations._seconds[add] = seconds
        handles = [bench.executor.compute(add, n, 1) for n in range(5)]
        handles[0].is_done()
        assert sent[0] == together
        assert [handle.result() for handle in handles] == [1, 2, 3, 4, 5]
        sent.clear()


@on_all
def test_waiting_for_a_computation_ends_with_it(bench: Bench) -> None:
    handle = bench.executor.compute(add, 1, 2)
    began = time.monotonic()
    while not handle.is_done():
        assert not bench.executor.wait(30.0, handle)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("bench", ["ray"], indirect=True)
@pytest.mark.parametrize("what", ["dies", "is stopped", "hangs", "takes too much memory"])
def test_what_a_compute_worker_was_at_is_done_again(
    bench: Bench,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With what it builds on and with what waited behind it."""
    monkeypatch.setattr("campaign.executors.process._STOPPED_SECONDS", 1.5)
    data = bench.executor.compute(add, 1, 2)
    lost = bench.executor.compute(once, str(tmp_path), what, 10)
    later = bench.executor.compute(add, data, lost)
    while not later.is_done():
        assert not bench.executor.wait(0.2, later)
    assert later.result() == 13
    assert len(set((tmp_path / "calls").read_text().split())) == 2
    (message,) = [
        record.message for record in caplog.records if "the compute worker" in record.message
    ]
    assert re.search(r"during (add, )?once; a fresh one does it again", message)
    told = {
        "dies": "died",
        "is stopped": "is stopped",
        "hangs": "no result within 4 s",
        "takes too much memory": "out of memory",
    }
    assert told[what] in message


@pytest.mark.parametrize("bench", ["ray"], indirect=True)
def test_a_computation_that_kills_its_worker_each_time_is_one_clear_error(
    bench: Bench, tmp_path: Path
) -> None:
    handle = bench.executor.compute(once, str(tmp_path), "always dies", 10)
    behind = bench.executor.compute(add, handle, 1)
    beside = bench.executor.compute(add, 1, 1)
    for one in (handle, behind):
        with pytest.raises(
            SurroundingsError, match=r"the compute worker died .* during once, 3 times"
        ):
            one.result()
    assert beside.result() == 2
    assert len((tmp_path / "calls").read_text().split()) == 3


@pytest.mark.parametrize("bench", ["ray"], indirect=True)
def test_a_stopped_worker_is_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keeper on the node, whose limits nobody else keeps."""
    monkeypatch.setattr("campaign.executors.process._STOPPED_SECONDS", 1.5)
    bench.label()
    bench.submit(bench.job("sleep 0.5"))
    keepers = [
        process
        for process in psutil.Process().children(recursive=True)
        if "ray::OracleWorker" in "".join(process.cmdline())
    ]
    keepers[0].suspend()
    kind, message = failure(bench.collect())
    assert kind is FailureKind.INFRASTRUCTURE
    assert "stopped from outside" in message
    assert bench.label().failure is None
    assert not is_alive(keepers[0]), "a stopped process does not hear Ray"


@in_processes
@pytest.mark.parametrize("patience", [0.5, 60.0])
def test_a_stopped_oracle_is_not_its_candidates_fault(
    bench: Bench, patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noticed before the limit, or told from an evaluation that takes too long when the limit
    is reached.
    """
    monkeypatch.setattr("campaign.executors.process._STOPPED_SECONDS", patience)
    monkeypatch.setattr("campaign.executors.process._LOOK_SECONDS", 0.1)
    bench.label()
    bench.submit(bench.job("sleep 0.5"))
    time.sleep(0.2)
    workers = [
        one
        for one in psutil.Process().children(recursive=True)
        if interpreters.DOOR in one.cmdline()
    ]
    own = [one for one in workers if (one.ppid() == os.getpid()) == (bench.name == "serial")]
    for worker in own:
        worker.suspend()
    began = time.monotonic()
    kind, message = failure(bench.collect())
    assert (time.monotonic() - began < LIMIT) == (patience < LIMIT) or bench.name == "ray"
    assert (kind, message) == (
        FailureKind.INFRASTRUCTURE,
        "the worker died, stopped from outside and killed",
    )
    assert not any(map(is_alive, own))
    assert bench.label().failure is None


# --- the end
# ------------------------------------------------------------


@pytest.mark.parametrize("name", IN_PROCESSES)
def test_the_end_leaves_no_process_and_no_folder(
    name: str, benches: Benches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a job under way that has started others."""
    benches.close()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    bench = Bench(name, tmp_path)
    try:
        bench.submit(bench.job("children 100"))
        while (
            not (tmp_path / "children").exists()
            or len((tmp_path / "children").read_text().split()) < 2
        ):
            bench.executor.wait(0.02)
        children = [process.pid for process in psutil.Process().children(recursive=True)]
    finally:
        bench.executor.shutdown()
    assert len(children) >= 2
    assert alive([*children, *bench.children()]) == []
    assert list((tmp_path / "temporary").iterdir()) == []
