"""The loop: train, fit, propose, screen, select, label, record; round after round, each step durable before the next acts on it.

``run`` and ``resume`` are one: fold the ledger, go on with the first step that it does not hold. A round's decisions see only labels
that stand in the ledger before the round began, so they can be replayed. In mode ``rounds`` the next round begins when the last one is
labelled; in mode ``streaming`` as soon as workers could run out of selected candidates while it decides (never fewer than two a
worker), and they go on meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

from campaign import budget, fit, plugins, propose, screen, select, train
from campaign.artifacts import ArtifactStore
from campaign.config import LoadedConfig
from campaign.dataset import dataset_before
from campaign.errors import StoppedByFailuresError
from campaign.label import evaluation_job, outcome
from campaign.ledger import Ledger
from campaign.ledger import events as ev
from campaign.ledger.state import Pair, RoundRecord
from campaign.protocols import Executor, FinishedJob, Handle, PluginSpec, Trainable
from campaign.schema import GeneratorConfig
from campaign.seeds import content_hash, stream_key
from campaign.types import Candidate, FailureKind

log = logging.getLogger(__name__)

_WAITING_PER_WORKER = 2
_HEADROOM, _FIRST_CYCLE_SECONDS = 1.3, 1.5
_MIN_LABELS_TO_FIT = 3
_MAX_RIVALS = 20

Step = Generator[Handle, None, None]


class Loop:
    """Drives one campaign. ``on_change`` is called after whatever is recorded; ``should_stop`` is asked before each step."""

    def __init__(
        self,
        loaded: LoadedConfig,
        ledger: Ledger,
        executor: Executor,
        *,
        on_change: Callable[[], None] = lambda: None,
        should_stop: Callable[[], str] = lambda: "",
    ) -> None:
        self.loaded, self.config, self.ledger, self.executor = loaded, loaded.config, ledger, executor
        self.state = ledger.state
        self.parts = loaded.parts
        self.space, self.objective = self.config.space.space, self.config.objective.objective
        self.oracle_configs = {oracle.label: oracle for oracle in self.config.oracles}
        self.fidelities = {name: fidelity.key for name, fidelity in self.parts.fidelities.items()}
        self.objective_oracle = objective_oracle(loaded)
        self.artifacts = ArtifactStore(ledger.folder)
        self._on_change, self._should_stop = on_change, should_stop
        self._waiting: deque[Pair] = deque(pair for pair in self.state.pending if pair[1] in self.oracle_configs)
        self._running: set[Pair] = set()
        self._cycle: Step | None = None
        self._handle: Handle | None = None
        self._cycle_began, self._cycle_seconds = 0.0, _FIRST_CYCLE_SECONDS

    def warm_up(self) -> None:
        """Let the compute worker import what the components need while the oracles' workers start."""
        specs = [self.loaded.spec("generators", generator) for generator in self.config.generators]
        if self.config.surrogate is not None:
            specs.append(self.loaded.spec("surrogates", self.config.surrogate))
        self.executor.compute(_import, specs)

    def is_over(self) -> bool:
        """Whether there is nothing left to do, so that no worker need be started."""
        return bool(budget.stop_reason(self.state, self.config, self.objective_oracle))

    def run(self) -> tuple[str, bool]:
        """Go on until there is a reason to stop; returns it, and whether the campaign is over. Work under way is waited for.

        Raises StoppedByFailuresError where every oracle that has work is paused.
        """
        self._give_up_work_of_removed_oracles()
        while True:
            interrupted = self._should_stop()
            over = budget.stop_reason(self.state, self.config, self.objective_oracle)
            if interrupted or over:
                if not self._running:
                    return (over, True) if over else (interrupted, False)
            else:
                self._dispatch()
                self._check_paused()
                if self._cycle is None and self._may_begin_round():
                    self._cycle = self._round()
                self._advance_cycle()
            self._collect()

    def _give_up_work_of_removed_oracles(self) -> None:
        """What was selected for an oracle that the config no longer holds will never be labelled; the ledger says so."""
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
        self._end_rounds()

    # --- labels ---------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Hand waiting candidates, whose decision is recorded, to free workers."""
        kept: deque[Pair] = deque()
        while self._waiting and any(self.executor.free_workers(name) for name in self.oracle_configs):
            pair = self._waiting.popleft()
            candidate, oracle = pair
            if oracle in self.state.paused or not self.executor.free_workers(oracle):
                kept.append(pair)
                continue
            last = self.state.last_failure.get(pair)
            job = evaluation_job(
                Candidate(self.ledger.crystal(candidate)),
                self.oracle_configs[oracle],
                self.fidelities[oracle],
                self.config.failure_policy,
                attempt=last.attempt + 1 if last is not None else 0,
                last=last.kind if last is not None else None,
            )
            self._running.add(pair)
            self.executor.submit(job)
        self._waiting.extendleft(reversed(kept))

    def _collect(self) -> None:
        """Wait for results and record all that came in one transaction, before their workers get more work."""
        finished = self.executor.wait(0.2, self._handle)
        if not finished:
            return
        for item in finished:
            self._running.discard((item.job.candidate.id, item.job.oracle))
        self._record(finished)
        self._on_change()

    def _record(self, finished: Sequence[FinishedJob]) -> None:
        events: list[ev.Event] = []
        blobs: dict[str, bytes] = {}
        for item in finished:
            name = item.job.oracle
            event, crystal = outcome(item, fidelity=self.fidelities[name], policy=self.config.failure_policy, artifacts=self.artifacts)
            events.append(event)
            blobs.update(crystal)
            if isinstance(event, ev.Failed):
                log.warning("%s failed on %s (%s, attempt %d): %s", name, event.candidate[:8], event.kind, event.attempt + 1, event.message)
                if not event.is_quarantined:
                    self._waiting.append((event.candidate, name))
        self.ledger.append(events, blobs)
        self._end_rounds()
        self._pause_failing_oracles()

    def _end_rounds(self) -> None:
        ended = [
            ev.RoundEnded(round=record.index, key=f"round/{record.index}/ended")
            for record in self.state.rounds
            if record.ended is None and record.decided is not None and not self.state.outstanding[record.index]
        ]
        self.ledger.append(ended)
        if ended:
            self._on_change()

    def _pause_failing_oracles(self) -> None:
        policy = self.config.failure_policy
        for name in self.oracle_configs:
            recent = self.state.outcomes[name][-policy.window :]
            if name in self.state.paused or len(recent) < policy.window:
                continue
            rate = 1 - sum(recent) / len(recent)
            if rate > policy.pause_above:
                reason = f"{rate:.0%} of its last {len(recent)} attempts failed, allowed {policy.pause_above:.0%}"
                log.error("oracle %s is paused: %s", name, reason)
                self.ledger.append([ev.OraclePaused(oracle=name, reason=reason)])

    def _check_paused(self) -> None:
        has_work = {oracle for _, oracle in self._waiting} | {oracle for _, oracle in self._running} | {self.objective_oracle}
        if not has_work - self.state.paused.keys() and not self._running:
            name, reason = next(iter(self.state.paused.items()))
            raise StoppedByFailuresError(
                f"oracle {name} is paused: {reason}",
                hint=f"see `oreloop status {self.ledger.folder}`; mend the cause, then run again: the campaign goes on where it stopped",
            )

    # --- rounds ---------------------------------------------------------------------------------------------------

    def _may_begin_round(self) -> bool:
        if self.state.rounds and self.state.rounds[-1].decided is None:
            return True
        rounds = self.config.budget.rounds
        if rounds is not None and len(self.state.rounds) >= rounds:
            return False
        left = budget.labels_left(self.state, self.config)
        if left is not None and left < len(self.oracle_configs):
            return False
        if self.config.mode == "rounds" or not self.state.rounds:
            return not self.state.pending
        low_water = self._low_water()
        few_labels = 2 * len(self.state.own_labels) < self.config.acquisition.initial_labels
        return len(self._waiting) < low_water and not (few_labels and self.state.pending)

    def _low_water(self) -> float:
        """Waiting candidates below which a round begins: two a worker, or what the workers label while a round decides."""
        workers = self.oracle_configs[self.objective_oracle].workers
        n_labels = len(self.state.own_labels)
        per_label = self.state.busy_seconds[self.objective_oracle] / n_labels if n_labels else float("inf")
        meanwhile = _HEADROOM * self._cycle_seconds * workers / max(per_label, 1e-3)
        return max(_WAITING_PER_WORKER * workers, min(meanwhile, self.config.acquisition.batch_size))

    def _advance_cycle(self) -> None:
        """Run the round's steps as far as their computations are done."""
        if self._cycle is not None and self._handle is None:
            self._cycle_began = time.monotonic()
        while self._cycle is not None and (self._handle is None or self._handle.is_done()):
            try:
                self._handle = next(self._cycle)
            except StopIteration:
                self._cycle = self._handle = None
                self._cycle_seconds = time.monotonic() - self._cycle_began
                self._on_change()

    def _round(self) -> Step:
        """The steps of the round that the ledger has begun and not decided, or of the next one. Yields what must be waited for."""
        state = self.state
        if not state.rounds or state.rounds[-1].decided is not None:
            self.ledger.append([ev.RoundStarted(round=len(state.rounds), key=f"round/{len(state.rounds)}/started")])
        record = state.rounds[-1]
        dataset = dataset_before(self.ledger, state, record.sequence, self.objective_oracle)
        data = self.executor.compute(_itself, dataset)
        pending = tuple(Candidate(crystal) for crystal in self.ledger.crystals(sorted({candidate for candidate, _ in state.pending})))

        for generator in self.config.generators:
            yield from self._train(record, generator, dataset.key, len(dataset.labelled), data)

        fitted: Handle | None = None
        has_labels = len(dataset.of(self.objective.quantity)[0]) >= max(_MIN_LABELS_TO_FIT, min(self.config.acquisition.initial_labels, 10))
        if self.config.surrogate is not None and has_labels and self.config.acquisition.use not in ("random", "all"):
            fitted = yield from self._fit(record, data)

        batches: list[Handle] = []
        for generator in self.config.generators:
            handle = yield from self._propose(record, generator, data, fitted, pending)
            batches.append(handle)
        yield from self._screen(record, batches)
        yield from self._select(record, data, fitted, pending)
        self._end_rounds()

    def _train(self, record: RoundRecord, generator: GeneratorConfig, data_key: str, labels: int, data: Handle) -> Step:
        """Keyed work: the checkpoint is an artifact on disk before the event that names it."""
        name = generator.label
        is_due = labels > 0 and record.index > 0 and record.index % self.config.train_every == 0
        if not (is_due and isinstance(self.parts.generators[name], Trainable)):
            return
        parent = self.state.published(name)
        if any(event.generator == name for event in record.trained):
            return
        key = f"train/{content_hash([name, record.index, data_key, parent.checkpoint if parent else None])[:32]}"
        stream = stream_key(self.config.seed, f"train:{name}", record.index)
        old = self.artifacts.read(parent.checkpoint) if parent else None
        spec = self.loaded.spec("generators", generator)
        handle = self.executor.compute(train.train, spec, stream, self.space, self.objective, old, data)
        yield handle
        training: train.Training = handle.result()
        event = ev.Trained(
            key=key,
            round=record.index,
            generator=name,
            checkpoint=self.artifacts.write(training.checkpoint),
            parent=parent.checkpoint if parent else None,
            is_published=training.is_published,
            metrics=dict(training.metrics),
            seconds=training.seconds,
            labels=labels,
        )
        self.ledger.append([event])
        self.artifacts.discard(train.checkpoints_to_drop(self.state))

    def _fit(self, record: RoundRecord, data: Handle) -> Generator[Handle, None, Handle]:
        """A fit is a function of labels and the last fit's hyperparameters, both in the ledger; a resumed round repeats it."""
        assert self.config.surrogate is not None
        spec = self.loaded.spec("surrogates", self.config.surrogate)
        last = next((r.fitted for r in reversed(self.state.rounds[: record.index]) if r.fitted is not None), None)
        stream = stream_key(self.config.seed, "fit", record.index)
        previous = last.hyperparameters if last is not None else None
        handle = self.executor.compute(fit.fit, spec, data, self.objective.quantity, previous, stream)
        summary_handle = self.executor.compute(fit.summary_of, handle)
        yield summary_handle
        summary: fit.FitSummary = summary_handle.result()
        event = ev.Fitted(
            key=f"round/{record.index}/fitted",
            round=record.index,
            model=summary.model,
            labels=summary.labels,
            hyperparameters=dict(summary.hyperparameters),
            seconds=summary.seconds,
            cpu_seconds=summary.cpu_seconds,
        )
        self.ledger.append([event])
        return handle

    def _propose(
        self, record: RoundRecord, generator: GeneratorConfig, data: Handle, fitted: Handle | None, pending: tuple[Candidate, ...]
    ) -> Generator[Handle, None, Handle]:
        name = generator.label
        known = next((event for event in record.proposed if event.generator == name), None)
        if known is not None:
            blobs = self.ledger.blobs([row.candidate for row in known.proposals])
            return self.executor.compute(_itself, propose.Proposals(known.proposals, blobs))
        published = self.state.published(name)
        checkpoint = self.artifacts.read(published.checkpoint) if published else None
        stream = stream_key(self.config.seed, f"generate:{name}", record.index)
        spec = self.loaded.spec("generators", generator)
        handle = self.executor.compute(
            propose.propose, spec, generator.count, stream, self.space, self.objective, checkpoint, pending, data, fitted
        )
        yield handle
        proposals: propose.Proposals = handle.result()
        event = ev.Proposed(
            key=f"round/{record.index}/proposed/{name}",
            round=record.index,
            generator=name,
            checkpoint=published.checkpoint if published else None,
            stream=stream,
            seconds=proposals.seconds,
            proposals=proposals.rows,
        )
        self.ledger.append([event], proposals.blobs)
        return handle

    def _screen(self, record: RoundRecord, batches: Sequence[Handle]) -> Step:
        if record.judged is not None:
            return
        rows = {row.candidate: row for event in record.proposed for row in event.proposals}
        candidates, by_key = self.state.candidates, self.state.by_equivalence
        known = frozenset(identity for identity in rows if candidates[identity].verdict is not None or candidates[identity].source)
        rival_ids: dict[str, list[str]] = {}
        for key in {row.equivalence for identity, row in rows.items() if identity not in known}:
            same = [
                other
                for other in by_key[key]
                if candidates[other].source or ((verdict := candidates[other].verdict) is not None and verdict.is_accepted)
            ]
            if same:
                rival_ids[key] = same[:_MAX_RIVALS]
        blobs = self.ledger.blobs(sorted({identity for same in rival_ids.values() for identity in same}))
        rivals = {key: [(identity, blobs[identity]) for identity in same] for key, same in rival_ids.items()}
        extra = [self.loaded.spec("screens", component) for component in self.config.screens.extra]
        handle = self.executor.compute(screen.judge, self.config.screens, extra, self.space, rivals, known, *batches)
        yield handle
        self.ledger.append([ev.Judged(key=f"round/{record.index}/judged", round=record.index, verdicts=handle.result())])

    def _select(self, record: RoundRecord, data: Handle, fitted: Handle | None, pending: tuple[Candidate, ...]) -> Step:
        acquisition = self.config.acquisition
        pool_ids = self.state.pool(acquisition.pool_size)
        wanted = acquisition.initial_labels if record.index == 0 and fitted is None else acquisition.batch_size
        if acquisition.use == "all":
            wanted = len(pool_ids)
        left = budget.labels_left(self.state, self.config)
        n = min(wanted, len(pool_ids)) if left is None else min(wanted, len(pool_ids), max(0, left // len(self.oracle_configs)))
        stream = stream_key(self.config.seed, "select", record.index)
        pool = [Candidate(crystal) for crystal in self.ledger.crystals(pool_ids)]
        handle = self.executor.compute(select.select, acquisition, self.objective, n, stream, pool, pending, data, fitted)
        yield handle
        selection: select.Selection = handle.result()
        table_id = f"table-{content_hash(selection.table.hex())[:32]}" if selection.table is not None else None
        choices = tuple(
            ev.ChoiceRow(choice.candidate, oracle, choice.score, choice.mean, choice.deviation)
            for choice in selection.choices
            for oracle in self.oracle_configs
        )
        event = ev.Decided(
            key=f"round/{record.index}/decided",
            round=record.index,
            acquisition=selection.acquisition,
            model=record.fitted.model if record.fitted and fitted is not None else None,
            model_labels=record.fitted.labels if record.fitted and fitted is not None else 0,
            stream=stream,
            pool=select.pool_hash(pool_ids),
            pool_size=len(pool_ids),
            table=table_id,
            pending=tuple(candidate.id for candidate in pending),
            choices=choices,
            seconds=selection.seconds,
            labels_at_decision=len(self.state.labels),
        )
        self.ledger.append([event], {table_id: selection.table} if table_id is not None and selection.table is not None else {})
        self._waiting.extend((choice.candidate, choice.oracle) for choice in choices)


def _import(specs: Sequence[PluginSpec]) -> None:
    for spec in specs:
        plugins.load(spec)


def _itself(value: Any) -> Any:
    """Puts a value where computations find it without sending it again."""
    return value


def objective_oracle(loaded: LoadedConfig) -> str:
    """The first oracle of the config that measures the objective's quantity."""
    wanted = loaded.config.objective.quantity
    return next(name for name, oracle in loaded.parts.oracles.items() if wanted in {q.name for q in oracle.quantities})
