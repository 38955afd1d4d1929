"""Stated noise from the oracle's answer by way of the ledger to models and decisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ledgers import made_crystals, made_label

from campaign.acquisition import Aims, functions
from campaign.api import Campaign
from campaign.decide import calibration
from campaign.decide.replay import replay
from campaign.ledger import events as ev
from campaign.ledger.dataset import CurrentDataset, dataset_before
from campaign.ledger.state import CampaignState, LabelRecord
from campaign.types import Objective

Make = Callable[..., Campaign]

NOISY: dict[str, Any] = {
    "oracles": [{"use": "noisy_oracle:NoisyOracle", "name": "o"}],
    "objective": {"quantity": "value", "direction": "maximize"},
    "surrogate": {"use": "gp", "params": {"max_iterations": 30}},
    "acquisition": {"use": "log_expected_improvement", "initial_labels": 12, "batch_size": 4},
    "generators": [{"use": "random_alloy", "count": 30, "params": {"repeats": [2, 2, 1]}}],
    "budget": {"labels": 24},
}


def test_a_worthless_label_misleads_no_decision(small: Make) -> None:
    """Labels of much chromium are wrong by forty times the range of values and state ten times
    that as their noise: no decision expects such values, and all are replayed.
    """
    campaign = small(**NOISY)
    campaign.run()
    state = campaign.state()
    noisy = [label for label in state.own_labels if label.noise]
    assert noisy
    assert {label.noise["value"] for label in noisy} == {400.0}
    decided = [
        record.decided
        for record in state.rounds
        if record.decided is not None and record.decided.model is not None
    ]
    assert decided
    for event in decided:
        means = [choice.mean for choice in event.choices if choice.mean is not None]
        assert max(map(abs, means)) < 5.0
        assert replay(campaign, event.round) == event.choices


def test_datasets_hold_what_is_stated(small: Make) -> None:
    campaign = small(**NOISY)
    campaign.run()
    state, reader = campaign.state(), campaign.reader()
    dataset = dataset_before(reader, state, state.sequence + 1, "o")
    candidates, _ = dataset.of("value")
    noise = dataset.noise_of("value")
    assert noise is not None
    stated = [state.labels[candidate.id, "o"].noise.get("value", 0.0) for candidate in candidates]
    assert noise.tolist() == stated
    assert dataset.noise_of("another") is None
    assert CurrentDataset(reader, state, "o")().key == dataset.key
    reader.close()


def test_a_dataset_without_noise_has_the_key_that_it_had(small: Make) -> None:
    """So that models of older ledgers keep their names."""
    from campaign.seeds import content_hash

    campaign = small(budget={"labels": 9})
    campaign.run()
    state, reader = campaign.state(), campaign.reader()
    dataset = dataset_before(reader, state, state.sequence + 1, "lennard_jones")
    assert dataset.key == content_hash(
        [[item.candidate.id, dict(item.values)] for item in dataset.labelled]
    )
    assert dataset.noise_of("energy_per_atom") is None
    reader.close()


@pytest.mark.parametrize("noise", [None, 0.0, float("nan"), float("inf")])
def test_what_is_no_noise_counts_as_none(noise: float | None) -> None:
    assert record_of(ev.ObservationRow("energy_per_atom", -4.0, "eV/atom", noise)).noise == {}


def test_derived_energies_have_the_noise_of_what_decides_them() -> None:
    energy = ev.ObservationRow("energy_per_atom", -4.0, "eV/atom", 0.02)
    label = record_of(energy, formation_energy_per_atom=-0.1)
    assert label.noise == {"energy_per_atom": 0.02, "formation_energy_per_atom": 0.02}
    enthalpy = ev.ObservationRow("enthalpy_per_atom_at_10_gpa", -3.0, "eV/atom", None)
    assert record_of(energy, enthalpy, formation_energy_per_atom=-0.1).noise == {
        "energy_per_atom": 0.02
    }


def record_of(*rows: ev.ObservationRow, **derived: float) -> LabelRecord:
    return LabelRecord(1, 0, "c", "o", "f", rows, None, derived)


def test_the_best_of_noisy_labels_is_the_best_mean() -> None:
    """A label that is 5 too high and says that it may be: not the value to improve on."""
    values = torch.tensor([[1.0], [6.0], [2.0]], dtype=torch.float64)
    means = torch.tensor([[1.1], [1.5], [1.9]], dtype=torch.float64)
    aims = Aims((Objective("x", "maximize"),), ())
    is_noisy = torch.tensor([[False], [True], [False]])
    assert functions.best_gain(aims, functions.Known(values, means, is_noisy).filled()) == 2.0
    assert functions.best_gain(aims, functions.Known(values, means).filled()) == 6.0


@pytest.mark.parametrize(("noise", "expected"), [(None, 3.0), (4.0, 1.0)])
def test_noise_is_no_want_of_calibration(noise: float | None, expected: float) -> None:
    """Labels that lie three standard deviations off: a fault of the model, or of the labels where
    they say so.
    """
    state = CampaignState()
    state.apply(1, 0.0, ev.ConfigRevised(revision=0, sha256="s", config={}, fidelities={}))
    ids = [crystal.id for crystal in made_crystals(20)]
    state.apply(2, 0.0, ev.RoundStarted(round=0))
    rows = tuple(ev.ProposalRow(name, "FeNi:") for name in ids)
    proposed = ev.Proposed(
        round=0, generator="g", checkpoint=None, stream="s", seconds=0.0, proposals=rows
    )
    state.apply(3, 0.0, proposed)
    choices = tuple(ev.ChoiceRow(name, "o", 1.0, 2.0, 1.0) for name in ids)
    decided = ev.Decided(
        round=0,
        acquisition="a",
        model="m",
        model_labels=3,
        stream="s",
        pool="h",
        pool_size=20,
        table=None,
        pending=(),
        choices=choices,
        seconds=0.0,
        labels_at_decision=0,
    )
    state.apply(4, 0.0, decided)
    for number, name in enumerate(ids):
        off = 3.0 if number % 2 else -3.0
        state.apply(5 + number, 0.0, made_label(name, 2.0 + off, noise=noise))
    found = calibration.scale(state, Objective("q", "maximize"), "o", state.sequence + 1)
    assert found == pytest.approx(expected)
    shown = calibration.calibration(
        calibration.predictions(state.rounds[0], state, Objective("q", "maximize"), "o")
    )
    assert shown["sharpness"] == pytest.approx(np.hypot(1.0, noise or 0.0))
