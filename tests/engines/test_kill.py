"""``kill -9`` of the driver at named points and at random times, each followed by a run: nothing is
lost and nothing paid twice.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import drive
import numpy as np
import pytest
from support import HELPERS, SMALL, load, merged

from campaign.api import Campaign
from campaign.decide.budget import stop_reason
from campaign.ledger import LedgerReader
from campaign.ledger.state import CampaignState

COMMITS = (
    "RoundStarted",
    "Trained",
    "Fitted",
    "Proposed",
    "Judged",
    "Decided",
    "Labelled",
    "RoundEnded",
)
NAMED = [
    f"{where}:{event}:{count}"
    for event, count in zip(COMMITS, (2, 1, 1, 3, 2, 2, 4, 1), strict=True)
    for where in ("before", "after")
]
BETWEEN = ["between:Decided:2", "between:Labelled:5", "between:Proposed:2"]
INSIDE = [
    "inside:fit:1",
    "inside:propose:2",
    "inside:judge:1",
    "inside:select:1",
    "inside:train:1",
    "inside:label:3",
]


class Killer:
    """Runs the small campaign again and again, killing its driver, and checks the ledger after each
    kill.
    """

    def __init__(self, folder: Path, mode: str, executor: str, workers: int) -> None:
        self.folder, self.log, self.workers = folder / "campaign", folder / "executions", workers
        self.log.touch()
        self.document: dict[str, Any] = merged(
            SMALL,
            {
                "mode": mode,
                "budget": {"labels": 44},
                "executor": {"use": executor},
                "oracles": [
                    {
                        "use": "user_oracles:Counting",
                        "params": {"log": str(self.log), "seconds": 0.02},
                        "workers": workers,
                        "cpus": 0.5,
                    }
                ],
            },
        )
        self.context = drive.context()
        self.phases: Counter[str] = Counter()
        self.kills = self.repeated = 0

    def start(self, fault: str) -> Any:
        process = self.context.Process(
            target=drive.drive, args=(str(self.folder), str(HELPERS), self.document, fault)
        )
        process.start()
        return process

    def state(self) -> CampaignState:
        if not (self.folder / "ledger.db").exists():
            return CampaignState()
        reader = LedgerReader(self.folder)
        try:
            return reader.fold()
        finally:
            reader.close()

    def is_over(self) -> bool:
        loaded = load(
            HELPERS,
            **{key: self.document[key] for key in ("mode", "budget", "executor", "oracles")},
        )
        return bool(stop_reason(self.state(), loaded.config, "Counting"))

    def kill(self, fault: str, delay: float | None = None) -> bool:
        """One run that is killed; False where the campaign ended before it could be."""
        before = set(self.state().labels)
        process = self.start(fault)
        if delay is not None:
            process.join(delay)
            process.kill()
        process.join(60)
        assert not process.is_alive(), "the driver neither ended nor died"
        state = self.state()
        assert before <= set(state.labels), "a finished label was lost"
        if process.exitcode != -9:
            assert process.exitcode == 0
            return False
        self.kills += 1
        self.phases[phase(state)] += 1
        return True

    def finish(self) -> CampaignState:
        process = self.start("")
        process.join(60)
        assert process.exitcode == 0
        state = self.state()
        executed = Counter(self.log.read_text().split())
        labelled = {candidate for candidate, _ in state.labels}
        assert len(state.labels) == 44
        assert labelled <= set(executed)
        repeated = sum(executed.values()) - len(labelled)
        assert repeated <= self.kills * self.workers, (
            f"{repeated} evaluations repeated after {self.kills} kills"
        )
        self.repeated = repeated
        return state


def phase(state: CampaignState) -> str:
    """Where in a round the driver died, by what the ledger holds."""
    if not state.rounds:
        return "start"
    record = state.rounds[-1]
    if record.decided is not None:
        return "label" if state.pending else "end of round"
    for name, done in (
        ("select", record.judged),
        ("screen", record.proposed),
        ("propose", record.fitted),
        ("fit", record.trained),
    ):
        if done:
            return name
    return "train"


def unbroken(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    killer = Killer(folder, "rounds", "serial", 1)
    process = killer.start("")
    process.join(60)
    assert process.exitcode == 0
    return {pair: label.values for pair, label in killer.state().labels.items()}


def tabulate(title: str, killers: list[Killer], capsys: pytest.CaptureFixture[str]) -> Counter[str]:
    """Show where the drivers died and what was computed again."""
    phases = sum((killer.phases for killer in killers), Counter[str]())
    with capsys.disabled():
        repeated = sum(killer.repeated for killer in killers)
        kills = f"{phases.total()} kills on {len(killers)} campaigns"
        print(f"\n{title}: {kills}, {repeated} evaluations repeated")  # noqa: T201
        for name, count in sorted(phases.items()):
            print(f"  died in {name:12s} {count:3d}")  # noqa: T201
    return phases


def make(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("mode", "wanted", "phases"),
    [
        ("rounds", 8, 2),
        ("streaming", 8, 2),
        pytest.param("rounds", 25, 4, marks=pytest.mark.slow),
        pytest.param("streaming", 25, 4, marks=pytest.mark.slow),
    ],
)
def test_serial_survives_kills(
    tmp_path: Path, mode: str, wanted: int, phases: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """At named points in random order, all of them in the full run, then at random times, on one
    campaign after another.
    """
    rng = np.random.default_rng(20 if mode == "rounds" else 21)
    faults = rng.permutation([*NAMED, *BETWEEN, *INSIDE]).tolist()[:wanted]
    reference = unbroken(make(tmp_path, "reference")) if mode == "rounds" else None
    kills, killers = 0, list[Killer]()
    while kills < wanted or faults:
        killer = Killer(make(tmp_path, f"{mode}-{len(killers)}"), mode, "serial", 1)
        killers.append(killer)
        assert len(killers) < 12, "the faults no longer hit the driver"
        while (kills < wanted or faults) and not killer.is_over():
            kills += (
                killer.kill(str(faults.pop()))
                if faults
                else killer.kill("", delay=float(rng.uniform(0.2, 1.5)))
            )
        state = killer.finish()
        if reference is not None:
            assert {pair: label.values for pair, label in state.labels.items()} == reference
    assert len(tabulate(f"serial, {mode}", killers, capsys)) >= phases


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("rounds", 2),
        ("streaming", 2),
        pytest.param("rounds", 20, marks=pytest.mark.slow),
        pytest.param("streaming", 20, marks=pytest.mark.slow),
    ],
)
def test_ray_survives_kills(
    tmp_path: Path, mode: str, wanted: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(wanted if mode == "rounds" else wanted + 1)
    faults = ["inside:label:5", "after:Decided:2", "before:Labelled:3", "inside:select:1"]
    reference = unbroken(make(tmp_path, "reference")) if mode == "rounds" else None
    kills, killers = 0, list[Killer]()
    while kills < wanted:
        killer = Killer(make(tmp_path, f"{mode}-{len(killers)}"), mode, "ray", 2)
        killers.append(killer)
        while kills < wanted and not killer.is_over():
            fault = faults[kills % len(faults)] if rng.random() < 0.6 else ""
            kills += killer.kill(fault, delay=None if fault else float(rng.uniform(4.0, 12.0)))
        state = killer.finish()
        if reference is not None:
            assert {pair: label.values for pair, label in state.labels.items()} == reference
    tabulate(f"ray, {mode}", killers, capsys)


def test_a_decision_can_be_replayed(tmp_path: Path) -> None:
    """The decision of each round follows again from the ledger as it stood before."""
    from campaign.decide.replay import replay

    campaign = Campaign(tmp_path / "campaign", load(HELPERS, mode="streaming"))
    campaign.run()
    decided = [
        record.decided
        for record in campaign.state().rounds
        if record.decided is not None and record.decided.model is not None
    ]
    assert len(decided) >= 2
    for event in decided:
        assert replay(campaign, event.round) == event.choices
