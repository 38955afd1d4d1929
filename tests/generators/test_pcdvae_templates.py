"""P-CDVAE's starts near labelled crystals: which one, where its atoms lie, what becomes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from campaign.crystals.lattice import supercell
from campaign.types import Crystal, FloatArray
from generators.metrics import phase_share
from generators.networks.graph import batch_of
from generators.pcdvae.model import PCDVAE, Shape, cell_parameters
from generators.pcdvae.sample import Focused, Near, sample, undecoded
from generators.pcdvae.templates import Templates, tiled, tilings

FCC, BCC = 0, 1


def alloy(lattice: Any, times: tuple[int, int, int], symbols: str = "Fe") -> Crystal:
    return supercell(lattice, times, [symbols] * (2 * int(np.prod(times))))


SMALL, LARGE = alloy("bcc", (2, 2, 2)), alloy("bcc", (3, 3, 3))
CLOSE = alloy("fcc", (2, 2, 2))
KNOWN = Templates.of([SMALL, LARGE, CLOSE], [BCC, BCC, FCC])


def cell(crystal: Crystal) -> FloatArray:
    return cell_parameters(crystal.lattice, len(crystal))


@given(n=st.integers(1, 60))
def test_tilings_are_all_of_them_once(n: int) -> None:
    found = tilings(n)
    assert all(a * b * c == n for a, b, c in found)
    assert len(set(found)) == len(found)
    expected = sum(1 for a in range(1, n + 1) for b in range(1, n + 1) if n % (a * b) == 0)
    assert len(found) == expected


@settings(deadline=None)
@given(times=st.tuples(*[st.integers(1, 3)] * 3), shift=st.floats(0, 1))
def test_a_tiled_crystal_is_the_same_crystal(times: tuple[int, int, int], shift: float) -> None:
    """Each atom's distance to all images of another one: sorted, they are those of the cell."""
    unit = np.array([[0.0, 0.0, 0.0], [0.5, 0.4, shift]])
    lattice = np.diag([2.0, 3.0, 4.0])
    found = tiled(unit, times) * np.array(times)
    assert found.shape == (2 * int(np.prod(times)), 3)
    for atom in found:
        off = (atom - unit) - np.round(atom - unit)
        assert (np.abs(off @ lattice).max(1) < 1e-9).any(), "on a site of the cell"
    places = {tuple(np.round(atom % np.array(times), 6)) for atom in found}
    assert len(places) == len(found) or shift in (0.0, 1.0), "no site twice"


def test_the_template_is_of_the_phase_and_size_and_most_like_the_cell() -> None:
    assert np.array_equal(KNOWN.nearest(cell(SMALL), BCC, 16), SMALL.fractional)  # type: ignore[arg-type]
    assert np.array_equal(KNOWN.nearest(cell(SMALL), FCC, 16), CLOSE.fractional)  # type: ignore[arg-type]
    assert np.array_equal(KNOWN.nearest(cell(LARGE), BCC, 54), LARGE.fractional)  # type: ignore[arg-type]
    assert KNOWN.nearest(cell(LARGE), FCC, 54) is None
    assert KNOWN.nearest(cell(LARGE), BCC, 15) is None
    assert Templates.of([], []).nearest(cell(SMALL), BCC, 16) is None


def test_the_largest_size_that_divides_is_tiled_to_the_cell() -> None:
    """108 atoms: twice the 54, along the axis that is twice as long."""
    for axis in range(3):
        times = [3, 3, 3]
        times[axis] = 6
        wanted = alloy("bcc", tuple(times))  # type: ignore[arg-type]
        positions = KNOWN.nearest(cell(wanted), BCC, 108)
        assert positions is not None
        found = Crystal(wanted.lattice, positions, wanted.numbers)
        assert phase_share(found, "bcc") == 1.0


class _Asked:
    """A model without training that predicts a cell and a phase, and pulls atoms to places."""

    def __init__(self, crystal: Crystal, phase: int) -> None:
        self.model = PCDVAE("small", Shape(len(crystal), n_phases=2))
        self.model.known.fill_(False)
        self.model.known[[25, 27]] = True
        self.model.lattice_mean = torch.tensor(cell(crystal), dtype=torch.float32)
        self.model.lattice_deviation = torch.zeros(6)
        self.model.predicted_phase = lambda latent: torch.full((len(latent),), phase)  # type: ignore[method-assign]
        self.ideal = batch_of([crystal])
        self.model.decode = self.perfect  # type: ignore[method-assign,assignment]
        way, unit = Near().after, (crystal.volume / len(crystal)) ** (1 / 3)
        reached = way.last * (1 + way.rate) ** 0.5 * unit
        self.levels = [
            *(unit * np.geomspace(way.first, way.last, way.steps)),
            *np.geomspace(reached, 0.01, way.ancestral),
        ]
        self.calls = 0

    def perfect(
        self, noisy: Any, latent: torch.Tensor, phase: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Each atom to the nearest place of the ideal crystal, in units of the call's level."""
        level = self.levels[min(self.calls, len(self.levels) - 1)]
        self.calls += 1
        off = noisy.fractional[:, None] - self.ideal.fractional[None]
        off = off - off.round()
        nearest = off.norm(dim=2).argmin(1)
        back = -off[torch.arange(len(off)), nearest]
        return noisy.cartesian(back) / level, torch.zeros(len(off), 100)


def test_near_a_template_a_large_crystal_settles_in_few_calls() -> None:
    asked = _Asked(LARGE, BCC)
    counts = torch.tensor([54])
    torch.manual_seed(0)
    (near,) = sample(asked.model, torch.zeros(1, 64), Near(), counts=counts, templates=KNOWN)
    assert asked.calls == Near().calls(50) == 60
    assert phase_share(near, "bcc") == 1.0


@pytest.mark.parametrize("templates", [None, Templates.of([CLOSE], [FCC])])
def test_without_a_template_positions_are_uniform(templates: Templates | None) -> None:
    asked = _Asked(LARGE, BCC)
    way = Near(otherwise=Focused(3, 2))
    torch.manual_seed(0)
    (found,) = sample(
        asked.model, torch.zeros(1, 64), way, counts=torch.tensor([54]), templates=templates
    )
    assert len(found) == 54
    assert asked.calls == 5


def test_crystals_with_and_without_a_template_come_in_order() -> None:
    asked = _Asked(SMALL, BCC)
    way = Near(otherwise=Focused(2, 1))
    found = sample(
        asked.model,
        torch.zeros(4, 64),
        way,
        counts=torch.tensor([15, 16, 7, 16]),
        templates=Templates.of([SMALL], [BCC]),
    )
    assert [len(crystal) for crystal in found] == [15, 16, 7, 16]


def test_the_control_is_the_template_in_the_predicted_cell() -> None:
    """Its elements are the predicted ones in another order, and no network moved anything."""
    asked = _Asked(LARGE, BCC)
    torch.manual_seed(0)
    control, missing = undecoded(asked.model, torch.zeros(2, 64), torch.tensor([54, 53]), KNOWN)
    assert missing is None
    assert control is not None
    assert np.allclose(control.fractional, LARGE.fractional, atol=1e-6)
    assert np.allclose(
        np.linalg.norm(control.lattice, axis=1), np.linalg.norm(LARGE.lattice, axis=1), rtol=1e-5
    )
    assert set(control.symbols) <= {"Fe", "Ni"}
    assert asked.calls == 0
