"""What the data that a config names hold, before anything is computed: how many crystals, and how
many pass each screen.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from campaign.config.loaded import LoadedConfig
from campaign.config.schema import SourceConfig
from campaign.errors import InputError
from campaign.ledger.events import ProposalRow
from campaign.protocols import is_costly
from campaign.rounds import screen, sources
from campaign.rounds.propose import Proposals
from campaign.types import Crystal


@dataclass(frozen=True)
class Survey:
    """Of one source: its crystals, the values by quantity, and how many each screen refuses that is
    no costly one.
    """

    purpose: str
    path: str
    crystals: tuple[Crystal, ...]
    values: Counter[str]
    refused: Counter[str]
    reasons: dict[str, str]

    @property
    def n_passing(self) -> int:
        return len(self.crystals) - self.refused.total()

    def __str__(self) -> str:
        told = [f"{len(self.crystals)} crystals"]
        told += [f"{count} with {name}" for name, count in self.values.items()]
        told.append(f"{self.n_passing} pass the screens")
        told += [
            f"{count} refused by {name} (such as: {self.reasons[name]})"
            for name, count in self.refused.most_common()
        ]
        return ", ".join(told)


def survey(loaded: LoadedConfig) -> list[Survey]:
    """Read every source of ``initial_data`` and ``candidate_pools``. Raises InputError with all
    that is wrong in them.

    Costly screens are left out.
    """
    found: list[Survey] = []
    wrong: list[InputError] = []
    for purpose, named in (
        ("initial_data", loaded.config.initial_data),
        ("candidate_pools", loaded.config.candidate_pools),
    ):
        for i, source in enumerate(named):
            try:
                found.append(_survey_of(loaded, purpose, source))
            except InputError as error:
                wrong.append(
                    InputError(f"{loaded.where((purpose, i))}: {error.message}", hint=error.hint)
                )
    if wrong:
        hints = dict.fromkeys(error.hint for error in wrong if error.hint)
        raise InputError("\n".join(error.message for error in wrong), hint="; ".join(hints))
    return found


def _survey_of(loaded: LoadedConfig, purpose: str, source: SourceConfig) -> Survey:
    config, parts = loaded.config, loaded.parts
    windows = {
        name: window
        for oracle in config.oracles
        if oracle.label == source.oracle
        for name, window in oracle.sanity.items()
    }
    found = sources.imported(
        source,
        folder=loaded.folder,
        purpose=purpose,
        quantities=parts.quantities(),
        windows=windows,
    )
    rows = tuple(ProposalRow(row.candidate, row.equivalence) for row in found.rows.values())
    rivals = screen.Rivals(screen.sameness(config.screens, parts.oracles.values()), frozenset(), {})
    pairs = zip(config.screens.extra, parts.screens, strict=True)
    extra = [loaded.spec("screens", component) for component, part in pairs if not is_costly(part)]
    verdicts = screen.judge(
        config.screens, extra, config.search_space, rivals, Proposals(rows, found.blobs)
    )
    refused = [verdict for verdict in verdicts if not verdict.is_accepted]
    return Survey(
        purpose,
        source.path,
        tuple(Crystal.from_bytes(found.blobs[row.candidate]) for row in rows),
        Counter(
            observation.quantity for row in found.rows.values() for observation in row.observations
        ),
        Counter(verdict.screen for verdict in refused),
        {verdict.screen: verdict.reason for verdict in reversed(refused)},
    )
