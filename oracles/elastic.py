"""Bulk modulus and elastic tensor by finite strains, with their errors, and what follows from them.

C_ij = d sigma_i / d epsilon_j with ions relaxed, Voigt order xx yy zz yz xz xy (engineering shear
strains), GPa. Averages: Voigt 1928, Reuss 1929, Hill 1952, through pymatgen. A crystal is stable
where the tensor's eigenvalues are positive (Born; Mouhat and Coudert, Phys. Rev. B 90, 224104
(2014)); they are taken in Kelvin's notation, where they do not depend on the axes.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields

import numpy as np

from campaign.types import FloatArray
from oracles.mechanics import Mechanics
from oracles.response import LEAST_REACH, slope

LARGEST_ERROR = 0.05
"""Share of the modulus, or of the tensor's largest component, where no other is asked for."""
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


@dataclass(frozen=True)
class Moduli:
    """Averages in GPa (Hill's where not named otherwise), Pugh's ratio G/B (1) and the smallest
    eigenvalue of the tensor (GPa).
    """

    bulk_voigt: float
    bulk_reuss: float
    bulk: float
    shear_voigt: float
    shear_reuss: float
    shear: float
    young: float
    pugh: float
    smallest_eigenvalue: float

    @property
    def is_stable(self) -> bool:
        return self.smallest_eigenvalue > 0


@dataclass(frozen=True)
class Modulus:
    """A bulk modulus and its error, GPa."""

    value: float
    error: float


@dataclass(frozen=True)
class Tensor:
    """An elastic tensor (6, 6) and the errors of its components, GPa."""

    value: FloatArray
    error: FloatArray


def bulk_modulus(
    mechanics: Mechanics, strain: float, largest_error: float = LARGEST_ERROR
) -> Modulus:
    """B = -dP / d ln V of the crystal that the engine holds, with relaxed ions; ``strain`` is that
    of the edges.

    Raises ValueError where the pressure is no smooth function of the volume: the error is more than
    this share of the modulus.
    """
    found = slope(
        mechanics,
        lambda x: np.eye(3) * math.exp(x / 3),
        lambda state: np.array(-state.pressure),
        strain=3 * strain,
        reach=3 * reach_of(strain),
    )
    value, error = float(found.value), float(found.error)
    _assert_known(
        abs(value),
        error,
        largest_error,
        "the pressure is no smooth function of the volume",
        "bulk modulus",
    )
    return Modulus(value, error)


def elastic_tensor(
    mechanics: Mechanics, strain: float, largest_error: float = LARGEST_ERROR
) -> Tensor:
    """The tensor of the crystal that the engine holds, with relaxed ions. The symmetric part is
    given.

    Raises ValueError where the stress is no smooth function of a strain.
    """
    columns = [
        slope(
            mechanics,
            lambda x, i=i, j=j: _sheared(x, i, j),  # type: ignore[misc]
            lambda state: np.array([state.stress[k] for k in VOIGT]),
            strain=strain,
            reach=reach_of(strain),
        )
        for i, j in VOIGT
    ]
    tensor, error = (
        np.array([column.value for column in columns]),
        np.array([column.error for column in columns]),
    )
    what = "the stress is no smooth function of the strain"
    _assert_known(
        float(np.abs(tensor).max()), float(error.max()), largest_error, what, "elastic tensor"
    )
    return Tensor((tensor + tensor.T) / 2, (error + error.T) / 2)


def reach_of(strain: float) -> float:
    """The largest linear strain that a modulus is judged by."""
    return max(LEAST_REACH, 2 * strain)


def _sheared(x: float, i: int, j: int) -> FloatArray:
    """The gradient of an engineering strain ``x`` of component ij."""
    gradient: FloatArray = np.eye(3)
    gradient[i, j] += x / 2
    gradient[j, i] += x / 2
    return gradient


def _assert_known(size: float, error: float, largest: float, what: str, name: str) -> None:
    """Raises ValueError for an error that leaves nothing to learn from."""
    if not error <= largest * size:
        raise ValueError(
            f"{what} here: the {name} of {size:.4g} GPa is known to {error:.3g} GPa only; "
            "neighbours stand at the edge of the potential's "
            "cutoff, or its table is rough; largest_modulus_error accepts more"
        )


def moduli_errors(tensor: Tensor) -> Moduli:
    """Errors of what follows from a tensor: each component's share, in quadrature."""
    plain, total = astuple(moduli(tensor.value)), np.zeros(len(fields(Moduli)))
    for i, j in zip(*np.triu_indices(6), strict=True):
        moved = tensor.value.copy()
        moved[i, j] += tensor.error[i, j]
        moved[j, i] = moved[i, j]
        total += (np.array(astuple(moduli(moved))) - plain) ** 2
    return Moduli(*np.sqrt(total).tolist())


def moduli(tensor: FloatArray) -> Moduli:
    """Averages of an elastic tensor (6, 6) in GPa."""
    from pymatgen.analysis.elasticity import ElasticTensor

    kelvin = np.diag([1, 1, 1, *[np.sqrt(2)] * 3])
    smallest = float(np.linalg.eigvalsh(kelvin @ tensor @ kelvin)[0])
    full = ElasticTensor.from_voigt(tensor)
    bulk, shear = float(full.k_vrh), float(full.g_vrh)
    return Moduli(
        bulk_voigt=float(full.k_voigt),
        bulk_reuss=float(full.k_reuss),
        bulk=bulk,
        shear_voigt=float(full.g_voigt),
        shear_reuss=float(full.g_reuss),
        shear=shear,
        young=9 * bulk * shear / (3 * bulk + shear),
        pugh=shear / bulk,
        smallest_eigenvalue=smallest,
    )
