"""Ledgers as the tests of the ledger need them: small, of closed form, with every kind of event
that a round makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from campaign.crystals.lattice import supercell
from campaign.ledger import Ledger
from campaign.ledger import events as ev
from campaign.types import Crystal

Step = tuple[Sequence[ev.Event], Mapping[str, bytes]]

CONFIG = {"name": "n", "seed": 1, "ledger": {"url": None}}


def made_crystals(n: int, seed: int = 0) -> list[Crystal]:
    rng = np.random.default_rng(seed)
    return [
        supercell("bcc", (3, 2, 2), rng.permutation(["Ni"] * 12 + ["Fe"] * 12).tolist())
        for _ in range(n)
    ]


def made_label(
    candidate: str, value: object, *, key: str = "", noise: float | None = None
) -> ev.Labelled:
    return ev.Labelled(
        key=key or f"evaluate/{candidate}", candidate=candidate, oracle="o", fidelity="f", attempt=0,  # noqa: E501
        observations=(ev.ObservationRow("q", value, "eV", noise),), crystal=None, artifacts={}, wall_seconds=1.5, cpu_seconds=1.4,  # noqa: E501
        started=10.0, worker="o-0",
    )  # fmt: skip


def made_failure(candidate: str, message: str, *, is_quarantined: bool = True) -> ev.Failed:
    return ev.Failed(
        key=f"fail/{candidate}/{message!r}", candidate=candidate, oracle="o", fidelity="f", attempt=0, kind="crash", message=message,  # noqa: E501
        is_retryable=False, is_quarantined=is_quarantined, wall_seconds=1.0, cpu_seconds=1.0, started=0.0, worker="o-0",  # noqa: E501
    )  # fmt: skip


def made_decision(index: int, candidates: Sequence[str], score: float | None = 1.0) -> ev.Decided:
    return ev.Decided(
        key=f"round/{index}/decided", round=index, acquisition="random", model=None, model_labels=0, stream="s", pool="h",  # noqa: E501
        pool_size=len(candidates), table=None, pending=(), choices=tuple(ev.ChoiceRow(item, "o", score, 2.0, 0.1) for item in candidates),  # noqa: E501
        seconds=0.1, labels_at_decision=0,
    )  # fmt: skip


def steps(rounds: int = 4, batch: int = 3) -> Iterator[Step]:
    """The transactions of a campaign whose rounds propose, judge, decide, label and end."""
    created = ev.CampaignCreated(campaign="c", name="n", seed=1)
    revised = ev.ConfigRevised(revision=0, sha256="s", config=CONFIG, fidelities={"o": "f"})
    yield [created, revised, ev.SessionStarted(host="h", process=1, versions={})], {}
    for index in range(rounds):
        found = made_crystals(batch, seed=index)
        ids = [crystal.id for crystal in found]
        yield [ev.RoundStarted(round=index, key=f"round/{index}/started")], {}
        rows = tuple(ev.ProposalRow(crystal.id, f"{crystal.formula}:{index}") for crystal in found)
        proposed = ev.Proposed(
            round=index,
            generator="g",
            checkpoint=None,
            stream="s",
            seconds=0.5,
            proposals=rows,
            key=f"round/{index}/proposed/g",
        )
        yield [proposed], {crystal.id: crystal.to_bytes() for crystal in found}
        yield (
            [
                ev.Judged(
                    round=index,
                    verdicts=tuple(ev.VerdictRow(item, True, "") for item in ids),
                    key=f"round/{index}/judged",
                )
            ],
            {},
        )
        yield [made_decision(index, ids)], {}
        for i, item in enumerate(ids[:-1]):
            yield [made_label(item, index + i / 10)], {}
        yield [made_failure(ids[-1], "no")], {}
        yield [ev.RoundEnded(round=index, key=f"round/{index}/ended")], {}


def made_ledger(folder: Path, url: str | None = None, rounds: int = 4) -> int:
    """A closed ledger in a folder; returns its number of events."""
    ledger = Ledger(folder, url)
    for events, blobs in steps(rounds):
        ledger.append(events, blobs)
    ledger.close()
    return ledger.state.sequence


def one_event(ledger: Ledger) -> None:
    ledger.append([ev.SessionStarted(host="h", process=1, versions={})])


def values(state: object) -> dict[tuple[str, str], dict[str, float]]:
    return {pair: label.values for pair, label in state.labels.items()}  # type: ignore[attr-defined]


def flip(path: Path, offset: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(bytes(data))
