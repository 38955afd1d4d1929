"""Slopes with their errors: smooth, rough and kinked stresses in closed form."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest

from campaign.types import Crystal, FloatArray
from oracles import elastic
from oracles.mechanics import State
from oracles.response import cubic_slope, slope


class Made:
    """An engine whose stress is a function of the volume's logarithm alone; its ions never give
    way.
    """

    def __init__(self, pressure: Callable[[float], float]) -> None:
        self._pressure, self._cell = pressure, np.eye(3)

    def load(self, crystal: Crystal) -> None:
        self._cell = crystal.lattice

    def relax(self, *, cell: bool, pressure: float = 0.0) -> float:
        return 0.0

    def deform(self, gradient: FloatArray) -> None:
        self._cell = self._cell @ gradient

    def state(self) -> State:
        pressure = self._pressure(float(np.log(np.linalg.det(self._cell))))
        crystal = Crystal(self._cell, np.zeros((1, 3)), np.array([28], dtype=np.uint8))
        return State(crystal, 0.0, np.zeros((1, 3)), -pressure * np.eye(3))


def murnaghan(x: float) -> float:
    """180 GPa with a derivative of 5."""
    return 180 / 5 * (np.exp(-5 * x) - 1)


def test_a_smooth_modulus_has_a_small_error_that_holds() -> None:
    for strain in (1e-4, 1e-3):
        found = elastic.bulk_modulus(Made(murnaghan), strain)
        assert abs(found.value - 180) <= found.error < 0.001 * 180


@pytest.mark.parametrize("steps", [3e-4, 1e-3, 2e-3])
def test_a_table_whose_slope_is_rough_says_how_well_its_modulus_is_known(steps: float) -> None:
    """Waves as a table of those steps brings them: small strains see up to a seventh more or
    less.
    """
    known = 0
    for phase in np.linspace(0, 2 * np.pi, 8, endpoint=False):
        rough = Made(
            lambda x, phase=phase: (
                murnaghan(x) + 25 * steps / (2 * np.pi) * np.sin(2 * np.pi * x / steps + phase)
            )
        )  # type: ignore[misc]
        with suppress(ValueError):
            found = elastic.bulk_modulus(rough, 1e-4)
            known += 1
            assert abs(found.value - 180) <= 3 * found.error
    assert known >= 4, "refused where little is known, but not as a rule"


def test_an_error_that_is_asked_for_is_stated_not_refused() -> None:
    kinked = Made(lambda x: -2660 * min(x, 5e-4) - 200 * max(x - 5e-4, 0.0))
    found = elastic.bulk_modulus(kinked, 1e-4, largest_error=10.0)
    assert found.error > 0.05 * found.value


def test_a_kink_of_the_pressure_near_the_crystal_leaves_no_modulus() -> None:
    """A neighbour that leaves the cutoff: the crystal is ten times stiffer on one side."""
    for edge in (-5e-4, 5e-4, 2e-3):
        with pytest.raises(ValueError, match=r"no smooth function of the volume here.*cutoff"):
            elastic.bulk_modulus(
                Made(lambda x, edge=edge: -2660 * min(x, edge) - 200 * max(x - edge, 0.0)), 1e-4
            )  # type: ignore[misc]


def test_an_elastic_tensor_of_a_fluid_has_its_modulus_everywhere_and_errors() -> None:
    tensor = elastic.elastic_tensor(Made(murnaghan), 1e-4)
    wanted = np.zeros((6, 6))
    wanted[:3, :3] = 180
    assert tensor.value == pytest.approx(wanted, abs=0.2)
    assert (np.abs(tensor.value - wanted) <= tensor.error + 1e-6).all()


def test_errors_of_averages_follow_those_of_the_components() -> None:
    value = np.diag([200.0] * 3 + [50.0] * 3)
    value[:3, :3] += 100 * (1 - np.eye(3))
    error = np.zeros((6, 6))
    error[0, 0] = 9.0
    found = elastic.moduli_errors(elastic.Tensor(value, error))
    assert found.bulk_voigt == pytest.approx(1.0), "a ninth of C11"
    assert found.shear_voigt == pytest.approx(9 / 15)
    assert found.bulk_voigt == pytest.approx(found.bulk, rel=0.2)


def test_a_cubic_gives_its_slope_back_and_noise_gives_its_error() -> None:
    x = np.linspace(-1, 1, 11)[[0, 1, 2, 3, 4, 6, 7, 8, 9, 10]]
    value, error = cubic_slope(x, np.stack([2 * x + 3 * x**3, 1 - x**2], axis=1))
    assert value == pytest.approx([2, 0], abs=1e-12)
    assert error == pytest.approx([0, 0], abs=1e-12)
    rng = np.random.default_rng(0)
    found = [cubic_slope(x, 2 * x + rng.normal(0, 0.1, len(x))) for _ in range(300)]
    assert np.std([value for value, _ in found]) == pytest.approx(
        np.sqrt(np.mean([error**2 for _, error in found])), rel=0.15
    )


def test_the_crystal_is_left_in_the_cell_that_it_had() -> None:
    engine = Made(murnaghan)
    slope(engine, lambda x: np.eye(3) * np.exp(x / 3), lambda state: state.stress, 1e-3, 1e-2)
    assert engine.state().crystal.lattice == pytest.approx(np.eye(3), abs=1e-12)
