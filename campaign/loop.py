"""The loop: train, fit, propose, screen, select, label, record; round after round, each step durable before the next acts on it.

``run`` and ``resume`` are one: fold the ledger, go on with the first step that it does not hold. A round's decisions see only labels
that stand in the ledger before the round began, so they can be replayed. In mode ``rounds`` the next round begins when the last one is
labelled; in mode ``streaming`` as soon as workers could run out of selected candidates while it decides (never fewer than two a
worker), and they go on meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from campaign import budget, calibration, fit, ladder, levels, plugins, propose, query, screen, select, shares, train
from campaign.artifacts import ArtifactStore
from campaign.config import LoadedConfig
from campaign.dataset import Dataset, dataset_before
from campaign.dispatch import Dispatcher
from campaign.ledger import Ledger
from campaign.ledger import events as ev
from campaign.ledger.state import COMMITTEE, RoundRecord
from campaign.protocols import Executor, Handle, NeedsLabels, PluginSpec, Trainable
from campaign.roles import objective_oracle, reference_oracles, waiting_for_committee
from campaign.schema import Component, GeneratorConfig
from campaign.seeds import content_hash, stream_key
from campaign.types import Candidate

_WAITING_PER_WORKER = 2
_HEADROOM, _FIRST_CYCLE_SECONDS = 1.3, 1.5
_MIN_LABELS_TO_FIT = 3

Step = Generator[Handle, None, None]


@dataclass(frozen=True)
class Learner:
    """Something that is trained in the loop."""

    name: str
    group: str
    component: Component
    part: Any


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
        self.objective_oracle = objective_oracle(loaded)
        self.search_oracle = ladder.search_level(self.config, self.objective_oracle)
        self.artifacts = ArtifactStore(ledger.folder)
        self.dispatcher = Dispatcher(loaded, ledger, executor, on_change)
        self._on_change, self._should_stop = on_change, should_stop
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
        work = self.dispatcher
        work.give_up_removed_oracles()
        if not self.is_over():
            work.schedule_sentinels(f"session {len(self.state.sessions)}")
            self._request_references()
        while True:
            interrupted = self._should_stop()
            over = budget.stop_reason(self.state, self.config, self.objective_oracle)
            if interrupted or over:
                if not work.is_working:
                    return (over, True) if over else (interrupted, False)
            else:
                work.dispatch()
                work.check_paused(self.search_oracle)
                work.check_references()
                if self._cycle is None and self._may_begin_round():
                    self._cycle = self._round()
                self._advance_cycle()
            work.collect(self._handle)

    def _request_references(self) -> None:
        waiting = waiting_for_committee(self.loaded, self.state)
        self.dispatcher.request_references([name for name in reference_oracles(self.loaded) if name not in waiting])

    # --- rounds ---------------------------------------------------------------------------------------------------

    def _may_begin_round(self) -> bool:
        if self.state.rounds and self.state.rounds[-1].decided is None:
            return True
        rounds = self.config.budget.rounds
        if rounds is not None and len(self.state.rounds) >= rounds:
            return False
        left = budget.labels_left(self.state, self.config)
        if left is not None and left < budget.labels_per_candidate(self.config):
            return False
        if self.dispatcher.sentinels_due and not self.state.rounds:
            return False
        if self.config.mode == "rounds" or not self.state.rounds:
            return not self.state.pending
        low_water = self._low_water()
        few_labels = 2 * len(self.state.own_labels) < self.config.acquisition.initial_labels
        return len(self.dispatcher.waiting) < low_water and not (few_labels and self.state.pending)

    def _low_water(self) -> float:
        """Waiting candidates below which a round begins: two a worker, or what the workers label while a round decides."""
        workers = self.oracle_configs[self.search_oracle].workers
        n_labels = sum(label.oracle == self.search_oracle for label in self.state.own_labels)
        per_label = self.state.busy_seconds[self.search_oracle] / n_labels if n_labels else float("inf")
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
            if self.config.sentinels is not None and state.rounds[-1].index % self.config.sentinels.every == 0 and len(state.rounds) > 1:
                self.dispatcher.schedule_sentinels(f"round {state.rounds[-1].index}")
        record = state.rounds[-1]
        dataset = dataset_before(self.ledger, state, record.sequence, self.search_oracle)
        data = self.executor.compute(_itself, dataset)
        pending = tuple(Candidate(crystal) for crystal in self.ledger.crystals(sorted({candidate for candidate, _ in state.pending})))

        for learner in self._learners():
            yield from self._train(record, learner, dataset, data)
        self._request_references()

        by_level = self._levels_before(record)
        fitted: Handle | None = None
        least = max(_MIN_LABELS_TO_FIT, min(self.config.acquisition.initial_labels, 10))
        has_labels = len(dataset.of(self.objective.quantity)[0]) >= least and all(
            len(known.of(self.objective.quantity)[0]) >= _MIN_LABELS_TO_FIT for known in by_level.values()
        )
        if self.config.surrogate is not None and has_labels and self.config.acquisition.use not in ("random", "all", "query_by_committee"):
            fitted = yield from self._fit(record, data, by_level)

        batches: list[Handle] = []
        asked = shares.counts(self.state, self.config, self.search_oracle, record.sequence)
        for generator in self.config.generators:
            handle = yield from self._propose(record, generator, asked[generator.label], data, fitted, pending)
            batches.append(handle)
        yield from self._screen(record, batches)
        if by_level:
            yield from self._select_levels(record, by_level, fitted)
        else:
            yield from self._select(record, data, fitted, pending)
        self.dispatcher.end_rounds()

    def _levels_before(self, record: RoundRecord) -> dict[str, Dataset]:
        """The labels that the round sees by level, the cheapest first; empty unless acquisition chooses the level."""
        fidelities = self.config.fidelities
        if fidelities is None or fidelities.mode != "acquisition":
            return {}
        return {level.oracle: dataset_before(self.ledger, self.state, record.sequence, level.oracle) for level in fidelities.levels}

    def _learners(self) -> list[Learner]:
        """What is trained in the loop: generators that learn, and the committee."""
        found = [Learner(g.label, "generators", g, self.parts.generators[g.label]) for g in self.config.generators]
        if self.config.committee is not None and self.parts.committee is not None:
            found.append(Learner(COMMITTEE, "committees", self.config.committee, self.parts.committee))
        return [learner for learner in found if isinstance(learner.part, Trainable)]

    def _train(self, record: RoundRecord, learner: Learner, dataset: Dataset, data: Handle) -> Step:
        """Keyed work: the checkpoint is an artifact on disk before the event that names it."""
        name, labels = learner.name, len(dataset.labelled)
        is_due = labels > 0 and record.index > 0 and record.index % self.config.train_every == 0
        is_ready = not isinstance(learner.part, NeedsLabels) or learner.part.is_ready(dataset.labelled)
        if not (is_due and is_ready):
            return
        parent = self.state.published(name)
        if any(event.generator == name for event in record.trained):
            return
        key = f"train/{content_hash([name, record.index, dataset.key, parent.checkpoint if parent else None])[:32]}"
        stream = stream_key(self.config.seed, f"train:{name}", record.index)
        old = self.artifacts.read(parent.checkpoint) if parent else None
        spec = self.loaded.spec(learner.group, learner.component)
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

    def _fit(self, record: RoundRecord, data: Handle, by_level: dict[str, Dataset]) -> Generator[Handle, None, Handle]:
        """A fit is a function of labels and the last fit's hyperparameters, both in the ledger; a resumed round repeats it."""
        assert self.config.surrogate is not None
        spec = self.loaded.spec("surrogates", self.config.surrogate)
        last = next((r.fitted for r in reversed(self.state.rounds[: record.index]) if r.fitted is not None), None)
        stream = stream_key(self.config.seed, "fit", record.index)
        previous = last.hyperparameters if last is not None else None
        classifier = self.loaded.spec("classifiers", self.config.feasibility) if self.config.feasibility is not None else None
        if by_level:
            handle = self.executor.compute(fit.fit_levels, spec, by_level, self.objective.quantity, previous, stream)
        else:
            handle = self.executor.compute(fit.fit, spec, classifier, data, self.config.modelled, previous, stream)
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
        self, record: RoundRecord, generator: GeneratorConfig, n: int, data: Handle, fitted: Handle | None, pending: tuple[Candidate, ...]
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
            propose.propose, spec, n, stream, self.config, generator.oversampling, checkpoint, pending, data, fitted
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
            asked=n,
        )
        self.ledger.append([event], proposals.blobs)
        return handle

    def _screen(self, record: RoundRecord, batches: Sequence[Handle]) -> Step:
        if record.judged is not None:
            return
        rows = {row.candidate: row for event in record.proposed for row in event.proposals}
        keys = {identity: row.equivalence for identity, row in rows.items()}
        rivals = screen.rivals_of(self.config.screens, self.parts.oracles.values(), self.state, self.ledger, keys)
        extra = [self.loaded.spec("screens", component) for component in self.config.screens.extra]
        handle = self.executor.compute(screen.judge, self.config.screens, extra, self.space, rivals, *batches)
        yield handle
        self.ledger.append([ev.Judged(key=f"round/{record.index}/judged", round=record.index, verdicts=handle.result())])

    def _select(self, record: RoundRecord, data: Handle, fitted: Handle | None, pending: tuple[Candidate, ...]) -> Step:
        """Choose among the new at the level that is searched, and who climbs from there."""
        acquisition = self.config.acquisition
        pool_ids = self.state.pool(acquisition.pool_size)
        wanted = acquisition.initial_labels if record.index == 0 and fitted is None else acquisition.batch_size
        if acquisition.use == "all":
            wanted = len(pool_ids)
        stream = stream_key(self.config.seed, "select", record.index)
        waiting = waiting_for_committee(self.loaded, self.state)
        climbing = ladder.climbers(self.state, self.config, before=record.sequence, stream=f"{stream}/climb", closed=waiting)
        left = budget.labels_left(self.state, self.config)
        if left is not None:
            climbing = climbing[:left]
            wanted = min(wanted, max(0, (left - len(climbing)) // budget.labels_per_candidate(self.config)))
        if self.config.fidelities is not None:
            room = ladder.room_at(self.state, self.config.fidelities.levels[0])
            wanted = wanted if room is None else max(0, min(wanted, room))
        n = min(wanted, len(pool_ids))
        pool = [Candidate(crystal) for crystal in self.ledger.crystals(pool_ids)]
        published = self.state.published(COMMITTEE)
        scales = calibration.scales(self.state, self.config, self.search_oracle, record.sequence)
        if acquisition.use == "query_by_committee" and self.config.committee is not None and published is not None:
            spec = self.loaded.spec("committees", self.config.committee)
            weights = self.artifacts.read(published.checkpoint)
            handle = self.executor.compute(query.query, spec, weights, acquisition, n, pool)
        else:
            published = None
            handle = self.executor.compute(select.select, self.config, n, stream, pool, pending, data, fitted, scales)
        yield handle
        selection: select.Selection = handle.result()
        table_id = f"table-{content_hash(selection.table.hex())[:32]}" if selection.table is not None else None
        oracles = [self.search_oracle] if self.config.fidelities is not None else list(self.oracle_configs)
        choices = (
            *climbing,
            *(
                ev.ChoiceRow(choice.candidate, oracle, choice.score, choice.mean, choice.deviation, choice.reason)
                for choice in selection.choices
                for oracle in oracles
            ),
        )
        model, labels = None, 0
        if published is not None:
            model, labels = published.checkpoint, published.labels
        elif record.fitted is not None and fitted is not None:
            model, labels = record.fitted.model, record.fitted.labels
        event = ev.Decided(
            key=f"round/{record.index}/decided",
            round=record.index,
            acquisition=selection.acquisition,
            model=model,
            model_labels=labels,
            stream=stream,
            pool=select.pool_hash(pool_ids),
            pool_size=len(pool_ids),
            table=table_id,
            pending=tuple(candidate.id for candidate in pending),
            choices=choices,
            seconds=selection.seconds,
            labels_at_decision=len(self.state.labels),
            outcomes=dict(selection.outcomes),
            costs=ladder.costs(self.state, self.config),
            scales=scales if fitted is not None else {},
        )
        self.ledger.append([event], {table_id: selection.table} if table_id is not None and selection.table is not None else {})
        self.dispatcher.add((choice.candidate, choice.oracle) for choice in choices)

    def _select_levels(self, record: RoundRecord, by_level: dict[str, Dataset], fitted: Handle | None) -> Step:
        """Choose candidates and levels together, by gain per cost."""
        state, acquisition = self.state, self.config.acquisition
        assert self.config.fidelities is not None
        pool_ids = state.pool(acquisition.pool_size)
        wanted = acquisition.initial_labels if fitted is None else acquisition.batch_size
        left = budget.labels_left(state, self.config)
        n = wanted if left is None else max(0, min(wanted, left))
        pool = [Candidate(crystal) for crystal in self.ledger.crystals(pool_ids)]
        stream = stream_key(self.config.seed, "select", record.index)
        waiting = waiting_for_committee(self.loaded, state)
        audited = ladder.audits(state, self.config, before=record.sequence, stream=f"{stream}/audit", closed=waiting)
        audited = audited if left is None else audited[:left]
        n = n if left is None else min(n, left - len(audited))
        pairs = sorted(pair for pair in state.pending if pair[1] in by_level) + [(row.candidate, row.oracle) for row in audited]
        pending = [(oracle, Candidate(self.ledger.crystal(candidate))) for candidate, oracle in pairs]
        costs = ladder.costs(state, self.config)
        room = ladder.rooms(state, self.config, waiting, audited)
        eligible = ladder.eligible(state, self.config, record.sequence)
        handle = self.executor.compute(levels.select, self.config, n, stream, pool, pending, by_level, fitted, costs, room, eligible)
        yield handle
        selection: levels.LevelSelection = handle.result()
        table_id = f"table-{content_hash(selection.table.hex())[:32]}" if selection.table is not None else None
        rows = [(item.choice, item.oracle) for item in selection.choices]
        choices = (*audited, *(ev.ChoiceRow(one.candidate, oracle, one.score, one.mean, one.deviation) for one, oracle in rows))
        event = ev.Decided(
            key=f"round/{record.index}/decided",
            round=record.index,
            acquisition=selection.acquisition,
            model=record.fitted.model if record.fitted is not None and fitted is not None else None,
            model_labels=record.fitted.labels if record.fitted is not None and fitted is not None else 0,
            stream=stream,
            pool=select.pool_hash(pool_ids),
            pool_size=len(pool_ids),
            table=table_id,
            pending=tuple(candidate.id for _, candidate in pending),
            choices=choices,
            seconds=selection.seconds,
            labels_at_decision=len(state.labels),
            costs=costs,
        )
        self.ledger.append([event], {table_id: selection.table} if table_id is not None and selection.table is not None else {})
        self.dispatcher.add((choice.candidate, choice.oracle) for choice in choices)


def _import(specs: Sequence[PluginSpec]) -> None:
    for spec in specs:
        plugins.load(spec)


def _itself(value: Any) -> Any:
    """Puts a value where computations find it without sending it again."""
    return value
