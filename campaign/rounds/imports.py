"""What a config's sources hold, brought into the ledger: compared with their last import, screened
as proposals are, told and recorded.

What a source adds is taken at once; what it changes or withdraws has to be accepted. Verdicts are
recorded beside the import, and again where the bounds of the space or of the screens changed, for
those who wait to be selected.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from campaign.config.loaded import LoadedConfig
from campaign.config.schema import CampaignConfig, SourceConfig
from campaign.errors import InputError
from campaign.ledger import CampaignState, Ledger
from campaign.ledger import events as ev
from campaign.ledger.state import ImportKey
from campaign.rounds import screen, sources
from campaign.rounds.propose import Proposals
from campaign.seeds import content_hash
from campaign.types import Crystal, Quantity

log = logging.getLogger(__name__)

_SHOWN = 5
_VALIDITY = ("validity", "composition", "volume", "distance")
_SAME = 1e-9


@dataclass(frozen=True)
class Difference:
    """A source beside its last import: candidates that it adds, whose values it changes, and that
    it does not hold any more.
    """

    key: ImportKey
    source: SourceConfig | None
    now: sources.Import
    before: Mapping[str, ev.ImportedRow]

    @property
    def added(self) -> list[str]:
        return [candidate for candidate in self.now.rows if candidate not in self.before]

    @property
    def changed(self) -> list[str]:
        return [
            c
            for c, row in self.now.rows.items()
            if c in self.before and row.observations != self.before[c].observations
        ]

    @property
    def withdrawn(self) -> list[str]:
        return [candidate for candidate in self.before if candidate not in self.now.rows]

    @property
    def is_new(self) -> bool:
        return self.now.rows != self.before

    @property
    def title(self) -> str:
        return f"{self.key[0]} {self.key[1]}"

    def lines(self, kinds: Collection[str] = ("adds", "changes", "withdraws")) -> Iterator[str]:
        """What differs, for people; what a source held at its first import is no difference."""
        found = {
            "adds": self.added if self.before else [],
            "changes": self.changed,
            "withdraws": self.withdrawn,
        }
        for what, candidates in found.items():
            if candidates and what in kinds:
                shown = [self._shown(candidate) for candidate in candidates[:_SHOWN]]
                more = f" and {len(candidates) - _SHOWN} more" if len(candidates) > _SHOWN else ""
                yield f"{self.title} {what} {len(candidates)}: {'; '.join(shown)}{more}"

    def _shown(self, candidate: str) -> str:
        old, new = self.before.get(candidate), self.now.rows.get(candidate)
        row = new or old
        assert row is not None
        values = [f"{_values(old)} became {_values(new)}"] if old and new else [_values(row)]
        return " ".join(
            [row.equivalence.partition(":")[0], *(value for value in (row.name, *values) if value)]
        )


def _values(row: ev.ImportedRow) -> str:
    return (
        ", ".join(f"{item.quantity} {item.value:.6g} {item.unit}" for item in row.observations)
        or "no label"
    )


def compare(loaded: LoadedConfig, state: CampaignState, *, accepted: bool) -> list[Difference]:
    """Read every source and hold it against what is recorded of it.

    Raises InputError where a source cannot be read, where two sources or a source and the campaign
    itself disagree on a label, or where something is changed or withdrawn and that is not
    ``accepted``.
    """
    found = [*_gone(loaded.config, state), *_differences(loaded, state)]
    _check_agreement(found, state)
    unsure = [
        line
        for difference in found
        if difference.source is not None
        for line in difference.lines(("changes", "withdraws"))
    ]
    if unsure and not accepted:
        raise InputError(
            "the data that the config names are not what this campaign took in:\n"
            + "\n".join(unsure),
            hint="run again with --accept-changes to use them from the next round on",
        )
    return [difference for difference in found if difference.is_new]


def take_in(loaded: LoadedConfig, ledger: Ledger, found: Sequence[Difference]) -> None:
    """Record what ``compare`` found, with the verdicts on what it adds, and judge again who waits
    where the bounds changed.
    """
    for difference in found:
        for line in difference.lines():
            log.info("%s", line)
        _record(loaded, ledger, difference)
    _judge_again(loaded, ledger)


def _differences(loaded: LoadedConfig, state: CampaignState) -> Iterator[Difference]:
    for purpose, source in _sources(loaded.config):
        oracle = next(
            (oracle for oracle in loaded.config.oracles if oracle.label == source.oracle), None
        )
        now = sources.imported(
            source,
            folder=loaded.folder,
            purpose=purpose,
            quantities=_quantities(loaded, source),
            windows=oracle.sanity if oracle is not None else None,
        )
        key = purpose, source.path, source.oracle or ""
        yield Difference(key, source, now, state.imported.get(key, {}))


def _sources(config: CampaignConfig) -> Iterator[tuple[str, SourceConfig]]:
    for source in config.initial_data:
        yield "initial_data", source
    for source in config.candidate_pools:
        yield "candidate_pools", source


def _quantities(loaded: LoadedConfig, source: SourceConfig) -> dict[str, Quantity]:
    """What the source's oracle measures, and what follows from it."""
    known = loaded.parts.quantities()
    if source.oracle is None:
        return known
    measured = {quantity.name for quantity in loaded.parts.oracles[source.oracle].quantities}
    derived = known.keys() - {
        quantity.name for oracle in loaded.parts.oracles.values() for quantity in oracle.quantities
    }
    return {name: quantity for name, quantity in known.items() if name in measured | derived}


def _gone(config: CampaignConfig, state: CampaignState) -> Iterator[Difference]:
    """Sources that the config names no more: what they brought is withdrawn, as the change of the
    config was accepted.
    """
    named = {(purpose, source.path, source.oracle or "") for purpose, source in _sources(config)}
    for key, rows in state.imported.items():
        if key not in named and rows:
            yield Difference(key, None, sources.Import({}, {}, 0), rows)


def _check_agreement(found: Sequence[Difference], state: CampaignState) -> None:
    """Two values for one crystal at one oracle are an error, wherever they come from."""
    known: dict[tuple[str, str, str], tuple[float, str]] = {}
    lines = []
    for difference in found:
        oracle = difference.key[2]
        for candidate, row in difference.now.rows.items():
            label = state.labels.get((candidate, oracle)) if row.observations else None
            own = label.values if label is not None and not label.source else {}
            for item in row.observations:
                where = candidate, oracle, item.quantity
                other = (
                    (own[item.quantity], "the campaign itself")
                    if item.quantity in own
                    else known.get(where)
                )
                known.setdefault(where, (item.value, f"{difference.title}, {row.name}"))
                if other is not None and not math.isclose(other[0], item.value, rel_tol=_SAME):
                    formula = row.equivalence.partition(":")[0]
                    lines.append(
                        f"{difference.title}, {row.name}: {item.quantity} of {formula} is "
                        f"{item.value:.6g} {item.unit}, "
                        f"but {other[0]:.6g} by {other[1]}"
                    )
    if lines:
        raise InputError(
            "\n".join(lines[:_SHOWN]), hint="keep one value for each crystal and oracle"
        )


def _record(loaded: LoadedConfig, ledger: Ledger, difference: Difference) -> None:
    rows, state = difference.now.rows, ledger.state
    purpose, path, oracle = difference.key
    digest = content_hash(
        [
            [row.candidate, repr(row.observations), row.name, repr(row.facts)]
            for row in rows.values()
        ]
    )
    event = ev.Imported(
        key=f"import/{purpose}/{digest[:32]}/{loaded.parts.fidelities[oracle].key if oracle in loaded.parts.fidelities else ''}"  # noqa: E501
        f"/{len(state.imports)}",
        source=path,
        sha256=digest,
        oracle=oracle,
        fidelity=loaded.parts.fidelities[oracle].key if oracle in loaded.parts.fidelities else "",
        rows=tuple(rows.values()),
        purpose=purpose,
    )
    fresh = [
        (candidate, row.equivalence)
        for candidate, row in rows.items()
        if not row.observations
        and (candidate not in difference.before or difference.before[candidate].observations)
    ]
    crystals = {
        candidate: Crystal.from_bytes(difference.now.blobs[candidate]) for candidate, _ in fresh
    }
    verdicts = tuple(_judge(loaded, ledger, fresh, crystals))
    events: list[ev.Event] = [event]
    if verdicts:
        events.append(
            ev.Screened(
                key=f"screened/{event.key}",
                occasion=f"import of {difference.title}",
                verdicts=verdicts,
            )
        )
    ledger.append(events, difference.now.blobs)
    if difference.source is not None:
        _tell(loaded, difference, verdicts)


def _tell(loaded: LoadedConfig, difference: Difference, verdicts: Sequence[ev.VerdictRow]) -> None:
    refused = [row for row in verdicts if not row.is_accepted]
    if refused:
        by_screen = ", ".join(
            f"{n} by {screen}" for screen, n in Counter(row.screen for row in refused).most_common()
        )
        log.warning(
            "%s: %d of %d crystals are refused: %s",
            difference.title,
            len(refused),
            len(verdicts),
            by_screen,
        )
    doubled = difference.now.structures - len(difference.now.rows)
    if doubled:
        log.info(
            "%s: %d of %d structures stand there more than once",
            difference.title,
            doubled,
            difference.now.structures,
        )
    space = loaded.config.search_space
    labelled = [
        candidate for candidate in difference.added if difference.now.rows[candidate].observations
    ]
    outside = sum(
        bool(space.violation(Crystal.from_bytes(difference.now.blobs[candidate]).symbols))
        for candidate in labelled
    )
    if outside:
        log.warning(
            "%s: %d of %d labelled crystals lie outside the space",
            difference.title,
            outside,
            len(labelled),
        )


def _judge(
    loaded: LoadedConfig,
    ledger: Ledger,
    fresh: Sequence[tuple[str, str]],
    crystals: Mapping[str, Crystal],
) -> tuple[ev.VerdictRow, ...]:
    """One verdict for each of ``fresh``, candidates with their equivalence keys, by the screens
    that proposals pass.
    """
    config = loaded.config
    batch = Proposals(
        tuple(ev.ProposalRow(*pair) for pair in fresh),
        {candidate: crystals[candidate].to_bytes() for candidate, _ in fresh},
    )
    rivals = screen.rivals_of(
        config.screens, loaded.parts.oracles.values(), ledger.state, ledger, dict(fresh)
    )
    extra = [loaded.spec("screens", component) for component in config.screens.extra]
    return screen.judge(config.screens, extra, config.search_space, rivals, batch)


def _judge_again(loaded: LoadedConfig, ledger: Ledger) -> None:
    """Those who wait, and those who were refused for what they are, under bounds that changed
    since.
    """
    state = ledger.state
    bounds = [
        content_hash([revision.config.get("space"), _plain_bounds(revision.config)])
        for _, _, revision in state.revisions
    ]
    last = max((i for i in range(1, len(bounds)) if bounds[i] != bounds[i - 1]), default=0)
    key = f"screened/revision/{last}"
    if not last or key in state.keys:
        return
    refused = [
        c
        for c, record in state.candidates.items()
        if record.verdict is not None and record.verdict.screen in _VALIDITY
    ]
    names = [*state.unlabelled, *refused]
    crystals = dict(zip(names, ledger.crystals(names), strict=True))
    verdicts: list[ev.VerdictRow] = []
    for candidate in state.unlabelled:
        verdict = screen.judge_validity(
            crystals[candidate], loaded.config.screens, loaded.config.search_space
        )
        if not verdict.accepted:
            verdicts.append(ev.VerdictRow(candidate, False, verdict.screen, verdict.reason))
    n_left = len(verdicts)
    freed = [
        (candidate, state.candidates[candidate].equivalence)
        for candidate in refused
        if screen.judge_validity(
            crystals[candidate], loaded.config.screens, loaded.config.search_space
        ).accepted
    ]
    verdicts += _judge(loaded, ledger, freed, crystals)
    ledger.append(
        [ev.Screened(key=key, occasion=f"revision {last} of the config", verdicts=tuple(verdicts))]
    )
    if verdicts:
        log.warning(
            "the bounds changed: %d candidates that waited are refused now, %d that were "
            "refused are accepted",
            n_left,
            sum(row.is_accepted for row in verdicts),
        )


def _plain_bounds(config: Mapping[str, object]) -> object:
    screens = config.get("screens")
    return (
        [screens.get("min_distance"), screens.get("volume_per_atom")]
        if isinstance(screens, dict)
        else None
    )
