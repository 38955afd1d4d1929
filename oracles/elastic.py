"""The elastic tensor by finite strains, and what follows from it.

C_ij = d sigma_i / d epsilon_j with ions relaxed, Voigt order xx yy zz yz xz xy (engineering shear strains), GPa.
Averages: Voigt 1928, Reuss 1929, Hill 1952, through pymatgen. A crystal is stable where the tensor's eigenvalues are positive (Born;
Mouhat and Coudert, Phys. Rev. B 90, 224104 (2014)); they are taken in Kelvin's notation, where they do not depend on the axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from campaign.types import FloatArray
from oracles.mechanics import Mechanics

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


@dataclass(frozen=True)
class Moduli:
    """Averages in GPa (Hill's where not named otherwise), Pugh's ratio G/B (1) and the smallest eigenvalue of the tensor (GPa)."""

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


def elastic_tensor(mechanics: Mechanics, strain: float) -> FloatArray:
    """(6, 6) in GPa of the crystal that the engine holds; twelve cells with relaxed ions. The symmetric part is given."""
    columns = []
    for i, j in VOIGT:
        stresses = []
        for sign in (1, -1):
            epsilon = np.zeros((3, 3))
            epsilon[i, j] += sign * strain / 2
            epsilon[j, i] += sign * strain / 2
            gradient: FloatArray = np.eye(3) + epsilon
            mechanics.deform(gradient)
            mechanics.relax(cell=False)
            stresses.append(mechanics.state().stress)
            mechanics.deform(np.asarray(np.linalg.inv(gradient), dtype=float))
        change = (stresses[0] - stresses[1]) / (2 * strain)
        columns.append([change[k] for k in VOIGT])
    tensor = np.array(columns)
    found: FloatArray = (tensor + tensor.T) / 2
    return found


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
