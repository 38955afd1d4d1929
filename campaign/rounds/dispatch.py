"""Work on the oracles: what is selected goes to free workers, what comes back is recorded before
anything else happens.

Sentinels go first: an oracle gets no other work while one of its sentinels is due. Where the
surroundings fail (a full disk, a worker killed from outside), the candidate is not to blame: it is
tried again after a while, at last alone, and then held for this session.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

import msgspec

from campaign.config import elements
from campaign.config.loaded import LoadedConfig
from campaign.config.roles import asking_committee, waiting_for_committee
from campaign.crystals import references
from campaign.crystals.matching import key_or_none
from campaign.decide import ladder
from campaign.errors import StoppedByFailuresError, StuckError
from campaign.ledger import Ledger
from campaign.ledger import events as ev
from campaign.ledger.artifacts import ArtifactStore
from campaign.ledger.debts import PURPOSES
from campaign.ledger.state import Pair
from campaign.protocols import EvaluationJob, Executor, FinishedJob, Handle, OutlivesDriver
from campaign.rounds import phases, sentinels
from campaign.rounds.label import evaluation_job, observation_rows, outcome
from campaign.types import Candidate, Crystal, FailureKind

log = logging.getLogger(__name__)

_SENTINEL = "sentinel/"
_REFERENCE = "reference"
_SENTINEL_ATTEMPTS = 2
_SHOWN_PAIRS = 5
_PATIENCE_SECONDS, _PATIENCE_GROWTH = 1.0, 4.0


def _pair(job: EvaluationJob) -> Pair:
    return job.candidate.id, job.oracle


class Dispatcher:
    """The queue before the oracles. ``on_change`` is called after whatever is recorded."""

    def __init__(
        self,
        loaded: LoadedConfig,
        ledger: Ledger,
        executor: Executor,
        on_change: Callable[[], None],
    ) -> None:
        self.loaded, self.config, self.ledger, self.executor, self.state = (
            loaded,
            loaded.config,
            ledger,
            executor,
            ledger.state,
        )
        self.oracle_configs = {oracle.label: oracle for oracle in self.config.oracles}
        self.fidelities = {name: fidelity.key for name, fidelity in loaded.parts.fidelities.items()}
        self._asking_committee = asking_committee(loaded)
        self._published: tuple[str, bytes] | None = None
        self.artifacts = ArtifactStore(ledger.folder)
        self._on_change = on_change
        self._waiting: dict[str, deque[Pair]] = {name: deque() for name in self.oracle_configs}
        self._delayed: dict[Pair, float] = {}
        self.held: dict[Pair, str] = {}
        """Pairs that this session tries no more, with the surroundings' last failure."""
        self._troubled: dict[Pair, float] = {}
        """When the surroundings first failed a pair in this session, in monotonic seconds."""
        self._last_label: dict[str, float] = {}
        self.running: set[Pair] = set()
        self._alone: Pair | None = None
        self.add(self.state.pending)
        self._structures = elements.given_structures(self.config, loaded.folder)
        self._wanted_elementals: dict[str, tuple[Crystal, ...]] = {}
        self._sentinel_crystals = self._make_sentinels()
        self._sentinels: deque[EvaluationJob] = deque()
        self._running_sentinels: set[str] = set()

    @property
    def is_working(self) -> bool:
        return bool(self.running or self._running_sentinels)

    @property
    def is_due(self) -> bool:
        """Whether there is work that free workers will be given sooner or later."""
        is_waiting = any(
            pairs and name not in self.state.paused for name, pairs in self._waiting.items()
        )
        return bool(is_waiting or self._delayed or self.sentinels_due)

    @property
    def sentinels_due(self) -> bool:
        return bool(self._sentinels or self._running_sentinels)

    @property
    def n_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def is_round_open(self) -> bool:
        """Whether anything is pending that this session will still do."""
        return (
            any(pair not in self.held for pair in self.state.pending)
            if self.held
            else bool(self.state.pending)
        )

    def add(self, pairs: Iterable[Pair]) -> None:
        """Queue what a recorded decision chose, unless it was withdrawn."""
        for pair in pairs:
            if pair[1] in self._waiting and pair in self.state.pending:
                self._waiting[pair[1]].append(pair)

    def drop_withdrawn(self) -> None:
        """Take out of the queue what is pending no more, and end the rounds that waited for it."""
        for pairs in self._waiting.values():
            kept = [pair for pair in pairs if pair in self.state.pending]
            pairs.clear()
            pairs.extend(kept)
        self._delayed = {
            pair: due for pair, due in self._delayed.items() if pair in self.state.pending
        }
        if isinstance(self.executor, OutlivesDriver):
            gone = {
                job.key: _pair(job)
                for job in self.executor.not_begun()
                if _pair(job) in self.running - self.state.pending.keys()
            }
            self.executor.withdraw(gone)
            self.running.difference_update(gone.values())
        self.end_rounds()

    @property
    def begun(self) -> set[Pair]:
        """Pairs whose labels are under way, but for jobs that still wait in a queue."""
        waiting = self.executor.not_begun() if isinstance(self.executor, OutlivesDriver) else ()
        return self.running - {_pair(job) for job in waiting}

    # --- what is wanted outside of rounds
    # ------------------------------------------------------------

    def request_references(self, measuring: Sequence[str]) -> None:
        """Ask once for the elements' crystals at the oracles named, as formation energies need
        them.
        """
        rows, blobs = [], {}
        for oracle in measuring:
            for crystal in self._elementals(oracle):
                if (crystal.id, oracle) not in self.state.requested:
                    rows.append(ev.RequestRow(crystal.id, key_or_none(crystal), oracle))
                    blobs[crystal.id] = crystal.to_bytes()
        if rows:
            self.ledger.append([ev.Requested(purpose=_REFERENCE, rows=tuple(rows))], blobs)
            self.add(
                (row.candidate, row.oracle)
                for row in rows
                if (row.candidate, row.oracle) in self.state.pending
            )

    def _elementals(self, oracle: str) -> tuple[Crystal, ...]:
        """The elements' own crystals that an oracle is to label."""
        if oracle not in self._wanted_elementals:
            wanted = elements.wanted(self.config, oracle)
            self._wanted_elementals[oracle] = tuple(
                references.elementals(wanted, self._structures).values()
            )
        return self._wanted_elementals[oracle]

    def retry_references(self) -> None:
        """Another chance for elements' crystals that were given up: the cause may be gone."""
        failed = [
            pair
            for pair, purpose in self.state.requested.items()
            if purpose == _REFERENCE and pair in self.state.quarantined
        ]
        rows = tuple(ev.RetriedRow(*pair, -1) for pair in failed if pair[1] in self.oracle_configs)
        if rows:
            self.ledger.append([ev.Retried(reason="a new session", rows=rows)])
            self.add((row.candidate, row.oracle) for row in rows)

    def check_references(self) -> None:
        """Raises StoppedByFailuresError where an element's crystal could not be labelled."""
        for pair, purpose in self.state.requested.items():
            failed = self.state.quarantined.get(pair)
            if purpose == _REFERENCE and failed is not None and pair[1] in self.oracle_configs:
                formula = self.state.formula(pair[0])
                raise StoppedByFailuresError(
                    f"oracle {pair[1]} failed on the elements' reference {formula}: "
                    f"{failed.message}",
                    hint="formation energies refer to it: mend the oracle, or give another "
                    "structure under references.structures",
                )

    def give_up_removed_oracles(self) -> None:
        """What was selected for an oracle that the config no longer holds will never be labelled;
        the ledger says so.
        """
        removed = [pair for pair in self.state.pending if pair[1] not in self.oracle_configs]
        self.ledger.append(
            [
                ev.Failed(
                    key=f"removed/{candidate}/{oracle}",
                    candidate=candidate,
                    oracle=oracle,
                    fidelity="",
                    attempt=0,
                    kind=FailureKind.INFRASTRUCTURE.value,
                    message="the oracle was removed from the config",
                    is_retryable=False,
                    is_quarantined=True,
                    wall_seconds=0.0,
                    cpu_seconds=0.0,
                    started=0.0,
                    worker="",
                )
                for candidate, oracle in removed
            ]
        )
        self.end_rounds()

    def _make_sentinels(self) -> dict[str, tuple[str, Crystal]]:
        """By candidate id: name and crystal."""
        if self.config.sentinels is None:
            return {}
        found = references.sentinels(self.config.space.elements, self._structures)
        return {crystal.id: (name, crystal) for name, crystal in found.items()}

    def schedule_sentinels(self, occasion: str) -> None:
        """Score every sentinel of every watched oracle again, once for an occasion."""
        for oracle in [
            name
            for name in sentinels.watched(self.config)
            if name not in waiting_for_committee(self.loaded, self.state)
        ]:
            for identity, (_, crystal) in self._sentinel_crystals.items():
                key = f"{_SENTINEL}{oracle}/{occasion}/{identity}"
                if key not in self.state.keys:
                    job = EvaluationJob(
                        key=key,
                        oracle=oracle,
                        candidate=Candidate(crystal),
                        committee=self._committee(oracle),
                    )
                    self._sentinels.append(job)

    # --- to the workers and back
    # ------------------------------------------------------------

    def dispatch(self) -> None:
        """Hand sentinels, then waiting candidates, to free workers."""
        if self._alone is not None:
            return
        for _ in range(len(self._sentinels)):
            job = self._sentinels.popleft()
            if self.executor.free_workers(job.oracle):
                self._running_sentinels.add(job.key)
                self.executor.submit(job)
            else:
                self._sentinels.append(job)
        self._end_delays()
        held_up = {job.oracle for job in self._sentinels} | {
            key.split("/")[1] for key in self._running_sentinels
        }
        for name, pairs in self._waiting.items():
            free = (
                0
                if name in held_up or name in self.state.paused or not pairs
                else self.executor.free_workers(name)
            )
            while pairs and free:
                jobs = self._together(
                    pairs, min(self.oracle_configs[name].batch, math.ceil(len(pairs) / free))
                )
                if jobs[0].alone and self.oracle_configs[name].jobs is None:
                    self._submit_alone(jobs[0])
                    return
                self.running.update(pairs.popleft() for _ in jobs)
                self.executor.submit(*jobs)
                free -= 1

    def _together(self, pairs: Sequence[Pair], most: int) -> list[EvaluationJob]:
        """Jobs for one worker: the first of the queue and what stands behind it. What failed before
        takes nothing else down with it.
        """
        fresh = itertools.takewhile(
            lambda pair: not self.state.tries.get(pair), itertools.islice(pairs, most)
        )
        return [self.job(pair) for pair in fresh] or [self.job(pairs[0])]

    def _submit_alone(self, job: EvaluationJob) -> None:
        """Once nothing else is under way; until then nothing else begins."""
        if not self.is_working:
            self._alone = self._waiting[job.oracle].popleft()
            self.running.add(self._alone)
            self.executor.submit(job)

    def _end_delays(self) -> None:
        now = time.monotonic()
        for pair in [pair for pair, due in self._delayed.items() if due <= now]:
            del self._delayed[pair]
            self.add([pair])

    def job(self, pair: Pair) -> EvaluationJob:
        """The next attempt at a pending label."""
        candidate, oracle = pair
        last = self.state.last_failure.get(pair)
        return evaluation_job(
            Candidate(self.ledger.crystal(candidate)),
            self.oracle_configs[oracle],
            self.fidelities[oracle],
            self.config.failure_policy,
            attempt=last.attempt + 1 if last is not None else 0,
            tries=self.state.tries.get(pair, ()),
            start=self._start(pair),
            committee=self._committee(oracle),
        )

    def _committee(self, oracle: str) -> bytes | None:
        """What an oracle asks whose model is the campaign's committee; it gets no work before there
        is one.
        """
        trained = self.state.committee_of_oracles
        if oracle not in self._asking_committee or trained is None:
            return None
        if self._published is None or self._published[0] != trained.checkpoint:
            self._published = trained.checkpoint, self.artifacts.read(trained.checkpoint)
        return self._published[1]

    def _start(self, pair: Pair) -> Crystal | None:
        """The crystal as a level below relaxed it, where the pair's level asks for that."""
        found = ladder.relaxed_below(self.state, self.config, *pair)
        return self.ledger.crystal(found) if found is not None else None

    def take_up(self, *, is_over: bool) -> None:
        """Go on waiting for labels that an earlier driver gave out; nothing else that it gave out
        is wanted any more.
        """
        if isinstance(self.executor, OutlivesDriver):
            queued = [] if is_over else self.config.queues
            pairs = [pair for name in queued for pair in self._waiting[name]]
            for job in self.executor.take_up([self.job(pair) for pair in dict.fromkeys(pairs)]):
                self._waiting[job.oracle].remove(_pair(job))
                self.running.add(_pair(job))

    def let_go(self, *, is_wanted: bool) -> None:
        """Wait no more for what goes on without a driver, or is cancelled where it is not wanted
        later.
        """
        if isinstance(self.executor, OutlivesDriver):
            for job in self.executor.let_go(is_wanted=is_wanted):
                self._running_sentinels.discard(job.key)
                if _pair(job) in self.running:
                    self.running.discard(_pair(job))
                    self.add([_pair(job)])

    def collect(self, handle: Handle | None) -> None:
        """Wait for results and record all that came in one transaction, before their workers get
        more work.
        """
        finished = self.executor.wait(0.2, handle)
        if not finished:
            return
        labels = [item for item in finished if not item.job.key.startswith(_SENTINEL)]
        if labels:
            self.record(labels)
        for item in finished:
            if item.job.key.startswith(_SENTINEL):
                self._record_sentinel(item)
        self._on_change()

    def record(self, finished: Sequence[FinishedJob]) -> None:
        """What came of jobs, with the end of the rounds that they were the last of."""
        events: list[ev.Labelled | ev.Failed] = []
        blobs: dict[str, bytes] = {}
        policy = self.config.failure_policy
        for item in finished:
            pair = item.job.candidate.id, item.job.oracle
            self.running.discard(pair)
            self._alone = None if self._alone == pair else self._alone
            tries = self.state.tries.get(pair, ())
            event, crystal = outcome(
                item,
                fidelity=self.fidelities[pair[1]],
                policy=policy,
                tries=tries,
                artifacts=self.artifacts,
            )
            if pair not in self.state.pending:
                continue
            is_of_other_work = event.key in self.state.keys
            events.append(msgspec.structs.replace(event, key=None) if is_of_other_work else event)
            blobs.update(crystal)
        settled = Counter(
            self.state.pending[event.candidate, event.oracle]
            for event in events
            if isinstance(event, ev.Labelled) or event.is_quarantined
        )
        self.ledger.append([*events, *self._ends_of_rounds(settled)], blobs)
        for event in events:
            if isinstance(event, ev.Labelled):
                self._last_label[event.oracle] = time.monotonic()
                self._keep(event, blobs)
            else:
                log.warning(
                    "%s failed on %s (%s, attempt %d): %s",
                    event.oracle,
                    event.candidate[:8],
                    event.kind,
                    event.attempt + 1,
                    event.message,
                )
                self._try_again(event)
        self._pause_failing_oracles()

    def _keep(self, event: ev.Labelled, blobs: Mapping[str, bytes]) -> None:
        """A competing phase's label, for other campaigns."""
        if self.state.requested.get(
            (event.candidate, event.oracle)
        ) in PURPOSES and phases.is_cacheable(self.loaded, event.oracle):
            phases.cache_of().keep(event, blobs.get(event.crystal or ""))

    def _try_again(self, event: ev.Failed) -> None:
        pair = event.candidate, event.oracle
        if event.is_quarantined:
            return
        failed = self.state.tries[pair].count(event.kind)
        if event.kind != FailureKind.INFRASTRUCTURE:
            self.add([pair])
            return
        began = self._troubled.setdefault(pair, time.monotonic())
        if failed <= self.config.failure_policy.infrastructure.retries:
            self._delayed[pair] = time.monotonic() + _PATIENCE_SECONDS * _PATIENCE_GROWTH ** (
                failed - 1
            )
            return
        self.held[pair] = event.message
        if (
            self._last_label.get(event.oracle, 0.0) < began
            and event.oracle not in self.state.paused
        ):
            self._pause(event.oracle, f"its surroundings fail it: {event.message}")

    def _record_sentinel(self, item: FinishedJob) -> None:
        job, evaluation = item.job, item.evaluation
        self._running_sentinels.discard(job.key)
        if evaluation.failure is not None and job.attempt + 1 < _SENTINEL_ATTEMPTS:
            self._sentinels.appendleft(replace(job, attempt=job.attempt + 1))
            return
        earlier = list(self.state.sentinels[job.candidate.id, job.oracle])
        event = ev.SentinelScored(
            key=job.key,
            oracle=job.oracle,
            fidelity=self.fidelities[job.oracle],
            candidate=job.candidate.id,
            occasion=job.key.split("/", 2)[2].rpartition("/")[0],
            observations=observation_rows(evaluation.observations),
            message=evaluation.failure.message[:2000] if evaluation.failure is not None else "",
            wall_seconds=evaluation.cost.wall_seconds,
            worker=evaluation.cost.worker,
        )
        self.ledger.append([event], {job.candidate.id: job.candidate.crystal.to_bytes()})
        drift = sentinels.drift(
            event, earlier, self.config, self._sentinel_crystals[job.candidate.id][0]
        )
        if drift:
            sentinels.refuse_drift(self.state, job.oracle, drift)

    def end_rounds(self) -> None:
        """Record the end of each round whose selection is labelled or given up."""
        if self.ledger.append(self._ends_of_rounds({})):
            self._on_change()

    def _ends_of_rounds(self, settled: Mapping[int, int]) -> list[ev.RoundEnded]:
        """Of the rounds that have nothing more to come once so many more of their pairs are
        labelled or given up.
        """
        return [
            ev.RoundEnded(round=index, key=f"round/{index}/ended")
            for index, record in self.state.open_rounds.items()
            if record.decided is not None and self.state.outstanding[index] == settled.get(index, 0)
        ]

    def _pause_failing_oracles(self) -> None:
        policy = self.config.failure_policy
        for name in self.oracle_configs:
            recent = self.state.outcomes[name][-policy.window :]
            if name in self.state.paused or len(recent) < policy.window:
                continue
            rate = 1 - sum(recent) / len(recent)
            if rate > policy.pause_above:
                reason = (
                    f"{rate:.0%} of its last {len(recent)} attempts failed, allowed "
                    f"{policy.pause_above:.0%}{self._common_cause(name)}"
                )
                self._pause(name, reason)

    def _pause(self, oracle: str, reason: str) -> None:
        log.error("oracle %s is paused: %s", oracle, reason)
        self.ledger.append([ev.OraclePaused(oracle=oracle, reason=reason)])

    def _common_cause(self, oracle: str) -> str:
        """What an oracle's failures of late have in common."""
        failed = [
            (event.kind, event.message)
            for _, _, event in self.state.failures
            if event.oracle == oracle
        ]
        (kind, message), _ = Counter(failed[-self.config.failure_policy.window :]).most_common(1)[0]
        return f"; most often {kind}: {message}"

    def check_paused(self, needed: str) -> None:
        """Raises StoppedByFailuresError where every oracle that has work, or that the rounds need,
        is paused.
        """
        has_work = (
            {name for name, pairs in self._waiting.items() if pairs}
            | {oracle for _, oracle in self.running}
            | {needed}
        )
        if not has_work - self.state.paused.keys() and not self.is_working:
            name, reason = next(iter(self.state.paused.items()))
            raise StoppedByFailuresError(
                f"oracle {name} is paused: {reason}",
                hint=f"see `oreloop status {self.ledger.folder}`; mend the cause, then run "
                "again: the campaign goes on where it stopped",
            )

    def refuse_to_wait(self) -> NoReturn:
        """Raises what there is to say where nothing runs, nothing is due and no round may begin."""
        if self.held:
            (_, oracle), reason = next(reversed(self.held.items()))
            raise StoppedByFailuresError(
                f"{len(self.held)} selected candidates could not be labelled, as the "
                f"surroundings of oracle {oracle} fail: {reason}",
                hint="mend the cause, then run again: they are tried anew, and nothing else is "
                "lost",
            )
        for name, reason in self.state.paused.items():
            if self._waiting.get(name):
                raise StoppedByFailuresError(
                    f"{len(self._waiting[name])} selected candidates wait for oracle {name}, "
                    f"which is paused: {reason}",
                    hint=f"see `oreloop status {self.ledger.folder}`; mend the cause, then run "
                    "again",
                )
        pairs = ", ".join(
            f"{candidate[:8]} at {oracle}"
            for candidate, oracle in list(self.state.pending)[:_SHOWN_PAIRS]
        )
        raise StuckError(
            "nothing runs, nothing is due and no round may begin, but "
            f"{len(self.state.pending)} labels are pending: {pairs or 'none'}",
            hint="run the same command again, nothing is lost; if it stops here again, it is a "
            "fault worth a report with the ledger",
        )
