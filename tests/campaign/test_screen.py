"""What the screens take for duplicates, in campaigns and in ledgers from before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import pytest
from ase.build import bulk

from campaign.api import Campaign
from campaign.config.schema import ScreensConfig
from campaign.crystals.matching import equivalence_key, key_or_none
from campaign.ledger import CampaignState, LedgerReader
from campaign.ledger import events as ev
from campaign.protocols import Oracle
from campaign.rounds import screen
from campaign.rounds.propose import Proposals
from campaign.types import Crystal, FloatArray, SearchSpace
from generators.metrics import is_valid
from oracles.analytic import LennardJones, LennardJonesConfig

Make = Callable[..., Campaign]
SINGLE_POINT = LennardJones(LennardJonesConfig())
NICKEL = Crystal.from_atoms(bulk("Ni", a=3.52))
LARGE = Crystal.from_atoms(bulk("Ni", a=3.52).repeat(2))
WIDE = Crystal.from_atoms(bulk("Ni", a=3.58).repeat(2))


class Relaxing(LennardJones):
    relaxes_volume = True


def labelled(small: Make, *generators: str, **screens: object) -> CampaignState:
    campaign = small(
        space={"elements": ["Ni", "Fe"], "max_fraction": 1.0},
        generators=[{"use": f"copies:{name}", "count": 7} for name in generators],
        acquisition={"use": "random"},
        budget={"labels": 20, "rounds": 2},
        screens=screens,
    )
    campaign.run()
    return campaign.state()


@pytest.mark.parametrize("generators", [("Cells",), ("Cells", "Turned"), ("Turned",)])
def test_two_crystals_in_many_cells_are_labelled_twice_in_all_rounds(
    small: Make, generators: tuple[str, ...]
) -> None:
    state = labelled(small, *generators)
    assert sorted(len(state.composition(candidate)) for candidate, _ in state.labels) == [1, 2]
    verdicts = [
        record.verdict for record in state.candidates.values() if record.verdict is not None
    ]
    refused = [verdict for verdict in verdicts if not verdict.is_accepted]
    assert len(refused) == len(verdicts) - 2 >= 4
    assert {verdict.screen for verdict in refused} <= {"duplicate", "known"}
    if generators == ("Turned",):
        assert all(
            verdict.screen == "duplicate" and "the same crystal as" in verdict.reason
            for verdict in refused
        )


@pytest.mark.parametrize(
    ("screens", "labels"),
    [({}, 7), ({"same": "structure"}, 7), ({"same": "shape"}, 1), ({"match_volume": 0.1}, 2)],
)
def test_volumes_are_candidates_of_a_single_point_oracle(
    small: Make, screens: dict[str, object], labels: int
) -> None:
    assert len(labelled(small, "Volumes", **screens).labels) == labels


def test_by_default_the_oracles_say_whether_volumes_count() -> None:
    relaxing = Relaxing(LennardJonesConfig())
    assert screen.sameness(ScreensConfig(), [relaxing]) == "shape"
    assert screen.sameness(ScreensConfig(), [relaxing, SINGLE_POINT]) == "structure"
    assert screen.sameness(ScreensConfig(same="shape"), [SINGLE_POINT]) == "shape"
    assert screen.sameness(ScreensConfig(same="structure"), [relaxing]) == "structure"


class Blobs:
    """The part of a ledger that holds crystals' bytes; counts how many are read."""

    def __init__(self, crystals: Sequence[Crystal]) -> None:
        self.crystals = {crystal.id: crystal for crystal in crystals}
        self.n_read = 0

    def blobs(self, identities: Sequence[str]) -> dict[str, bytes]:
        self.n_read += len(identities)
        return {identity: self.crystals[identity].to_bytes() for identity in identities}


def judged(
    before: Sequence[tuple[Crystal, str]],
    proposed: Sequence[tuple[Crystal, str]],
    oracle: Oracle = SINGLE_POINT,
) -> list[ev.VerdictRow]:
    """Verdicts on crystals with keys, where others with keys are in the ledger."""
    config = ScreensConfig()
    state = CampaignState()
    rows = tuple(ev.ImportedRow(crystal.id, key, ()) for crystal, key in before)
    state.apply(1, 0.0, ev.Imported(source="pool", sha256="", oracle="", fidelity="", rows=rows))
    proposals = tuple(ev.ProposalRow(crystal.id, key) for crystal, key in proposed)
    state.apply(2, 0.0, ev.RoundStarted(round=0))
    state.apply(
        3,
        0.0,
        ev.Proposed(
            round=0, generator="one", checkpoint=None, stream="", seconds=0.0, proposals=proposals
        ),
    )
    ledger = Blobs([crystal for crystal, _ in (*before, *proposed)])
    keys = {crystal.id: key for crystal, key in proposed}
    known = frozenset(identity for identity in keys if state.is_judged(identity))
    rivals = screen.rivals_of(
        config, [oracle], state, cast(LedgerReader, ledger), keys, known=known
    )
    batch = Proposals(proposals, {crystal.id: crystal.to_bytes() for crystal, _ in proposed})
    return list(screen.judge(config, (), SearchSpace(("Ni", "Fe")), rivals, batch))


EARLIER = "Ni1:0123456789abcdef", "Ni8:fedcba9876543210"


@pytest.mark.parametrize("old", [equivalence_key(NICKEL), EARLIER[0]])
@pytest.mark.parametrize("new", [equivalence_key(LARGE), EARLIER[1]])
def test_ledgers_with_keys_from_before_go_on(old: str, new: str) -> None:
    (verdict,) = judged([(NICKEL, old)], [(LARGE, new)])
    assert (verdict.is_accepted, verdict.screen) == (False, "duplicate")
    assert NICKEL.id in verdict.reason


def test_another_volume_is_a_duplicate_only_where_the_oracle_relaxes_it() -> None:
    before, proposed = [(NICKEL, equivalence_key(NICKEL))], [(WIDE, equivalence_key(WIDE))]
    assert judged(before, proposed)[0].is_accepted
    assert not judged(before, proposed, Relaxing(LennardJonesConfig()))[0].is_accepted


def test_what_was_judged_is_not_judged_again_and_only_what_may_be_equal_is_read() -> None:
    key = equivalence_key(NICKEL)
    assert [
        verdict.screen
        for verdict in judged([(NICKEL, key)], [(NICKEL, key), (LARGE, equivalence_key(LARGE))])
    ] == [
        "known",
        "duplicate",
    ]
    others = [
        Crystal.from_atoms(bulk("Ni", crystal, a=3.0)) for crystal in ("sc", "bcc", "diamond")
    ]
    state = CampaignState()
    rows = tuple(
        ev.ImportedRow(crystal.id, equivalence_key(crystal), ()) for crystal in (*others, NICKEL)
    )
    state.apply(1, 0.0, ev.Imported(source="pool", sha256="", oracle="", fidelity="", rows=rows))
    state.apply(2, 0.0, ev.RoundStarted(round=0))
    large = equivalence_key(LARGE)
    state.apply(
        3,
        0.0,
        ev.Proposed(
            round=0,
            generator="one",
            checkpoint=None,
            stream="",
            seconds=0.0,
            proposals=(ev.ProposalRow(LARGE.id, large),),
        ),
    )
    ledger = Blobs([*others, NICKEL, LARGE])
    rivals = screen.rivals_of(
        ScreensConfig(), [SINGLE_POINT], state, cast(LedgerReader, ledger), {LARGE.id: large}
    )
    assert list(rivals.accepted) == [NICKEL.id]
    assert ledger.n_read == 1


def test_a_cell_without_a_key_is_refused_by_what_is_wrong_with_it() -> None:
    crowded = Crystal(NICKEL.lattice, [[0.0, 0.0, 0.0], [0.0, 0.0, 0.01]], [28, 28])  # type: ignore[arg-type]
    (verdict,) = judged([(NICKEL, equivalence_key(NICKEL))], [(crowded, "")])
    assert (verdict.is_accepted, verdict.screen) == (False, "distance")


@pytest.mark.parametrize(
    "lattice",
    [
        np.diag([4.0, 4.0, 1e-9]),
        np.diag([1e4, 1e4, 2e-7]),
        np.array([[4.0, 0, 0], [4e5, 1e-4, 0], [0, 0, 4e4]]),
    ],
)
def test_flat_cells_are_refused_at_once(lattice: FloatArray) -> None:
    crystal = Crystal(lattice, np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]), np.array([28, 26]))  # type: ignore[arg-type]
    assert key_or_none(crystal) == ""
    verdict = screen.judge_validity(
        crystal, ScreensConfig(volume_per_atom=(1e-12, 1e9)), SearchSpace(("Ni", "Fe"))
    )
    assert verdict.screen == "validity"
    assert "too flat" in verdict.reason
    assert not is_valid(crystal)
