"""MACE networks and the batches that they take: made from settings or read from a file, asked for
energies, forces and stresses.

Angstrom, eV, eV/angstrom; stress in eV/angstrom^3 with tension positive, as MACE gives it.
MACE: Batatia, Kovacs, Simm, Ortner, Csanyi, NeurIPS 2022, arXiv:2206.07697.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mace  # noqa: F401  (sets the loading rules for MACE's own files; before any torch.load)
    from e3nn import o3
    from mace import data as mace_data
    from mace import modules
    from mace.tools import AtomicNumberTable, torch_geometric
from numpy.typing import NDArray
from pydantic import Field

from campaign.parameters import Parameters
from campaign.types import Crystal, FloatArray

Batch = Mapping[str, torch.Tensor]


class ArchitectureConfig(Parameters):
    """Size of a network that is trained from scratch."""

    channels: int = Field(16, ge=1, description="Features per atom and irreducible representation.")
    max_l: int = Field(
        0, ge=0, le=3, description="Maximum angular order of the features that atoms pass on."
    )
    max_ell: int = Field(
        2, ge=0, le=4, description="Maximum angular order of the spherical harmonics on edges."
    )
    correlation: int = Field(2, ge=1, le=4, description="Body order of the products, less one.")
    layers: int = Field(2, ge=1, le=4, description="Message-passing layers.")
    cutoff: float = Field(4.5, gt=0, description="Radius of the neighbourhoods (angstrom).")
    radial_functions: int = Field(6, ge=1, description="Bessel functions of the distance.")
    radial_widths: tuple[int, ...] = Field(
        (32, 32), min_length=1, description="Hidden widths of the radial network."
    )


@dataclass(frozen=True)
class Scales:
    """What a network's units are taken from: energies of the elements, mean and spread of energies,
    and neighbours per atom.
    """

    numbers: tuple[int, ...]
    element_energies: tuple[float, ...]
    shift: float
    scale: float
    neighbours: float


@dataclass(frozen=True)
class Prediction:
    """Energy (eV), forces (n, 3) in eV/angstrom and stress (3, 3) in eV/angstrom^3 of one
    crystal.
    """

    energy: float
    forces: FloatArray
    stress: FloatArray


def build(config: ArchitectureConfig, scales: Scales, seed: int) -> torch.nn.Module:
    """A ScaleShiftMACE with random weights from ``seed``, in torch's default precision."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        network: torch.nn.Module = modules.ScaleShiftMACE(
            r_max=config.cutoff,
            num_bessel=config.radial_functions,
            num_polynomial_cutoff=5,
            max_ell=config.max_ell,
            interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
            num_interactions=config.layers,
            num_elements=len(scales.numbers),
            hidden_irreps=o3.Irreps(
                [(config.channels, (order, (-1) ** order)) for order in range(config.max_l + 1)]
            ),
            MLP_irreps=o3.Irreps("16x0e"),
            gate=torch.nn.functional.silu,
            atomic_energies=np.array(scales.element_energies),
            avg_num_neighbors=scales.neighbours,
            atomic_numbers=list(scales.numbers),
            correlation=config.correlation,
            radial_MLP=list(config.radial_widths),
            radial_type="bessel",
            atomic_inter_scale=scales.scale,
            atomic_inter_shift=scales.shift,
        )
    return network


def read(data: bytes, device: str) -> torch.nn.Module:
    """A network from the bytes of a MACE file. Such files are pickles: only read in a MACE worker,
    after their hash is recorded.
    """
    network: torch.nn.Module = torch.load(io.BytesIO(data), map_location=device, weights_only=False)
    return network


def numbers_of(network: torch.nn.Module) -> tuple[int, ...]:
    numbers: Any = network.atomic_numbers
    return tuple(int(number) for number in numbers)


def cutoff_of(network: torch.nn.Module) -> float:
    cutoff: Any = network.r_max
    return float(cutoff)


def graph(
    crystal: Crystal, numbers: Sequence[int], cutoff: float, *, head: str = "Default", **labels: Any
) -> Any:
    """A crystal as MACE's graph; ``labels`` are energy (eV), forces (n, 3) and stress (3, 3), and a
    ``<name>_weight`` where not 1.
    """
    weights = {
        name.removesuffix("_weight"): value
        for name, value in labels.items()
        if name.endswith("_weight")
    }
    properties = {
        name: np.asarray(value) for name, value in labels.items() if not name.endswith("_weight")
    }
    configuration = mace_data.Configuration(
        atomic_numbers=crystal.numbers.astype(int),
        positions=crystal.fractional % 1.0 @ crystal.lattice,
        cell=np.array(crystal.lattice),
        pbc=(True, True, True),
        properties=properties,
        property_weights=weights,
        head=head,
    )
    return mace_data.AtomicData.from_config(
        configuration, z_table=AtomicNumberTable(list(numbers)), cutoff=cutoff, heads=[head]
    )


def batches(
    graphs: Sequence[Any], size: int, *, order: NDArray[np.int64] | None = None
) -> Iterator[Batch]:
    """Graphs collated ``size`` at a time, in ``order`` where given."""
    rows = order if order is not None else np.arange(len(graphs))
    for start in range(0, len(rows), size):
        collated = torch_geometric.batch.Batch.from_data_list(  # type: ignore[no-untyped-call]
            [graphs[row] for row in rows[start : start + size]]
        )
        yield collated.to_dict()


def predict(
    network: torch.nn.Module,
    crystals: Sequence[Crystal],
    *,
    batch_size: int = 32,
    device: str = "cpu",
) -> list[Prediction]:
    """Energies, forces and stresses of many crystals, ``batch_size`` at once; memory grows with the
    edges of a batch.
    """
    dtype = next(network.parameters()).dtype
    numbers, cutoff = numbers_of(network), cutoff_of(network)
    head = getattr(network, "heads", ["Default"])[-1]
    with default_dtype(dtype):
        graphs = [graph(crystal, numbers, cutoff, head=head) for crystal in crystals]
    found: list[Prediction] = []
    for batch in batches(graphs, batch_size):
        on_device = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
        output = network(on_device, training=False, compute_force=True, compute_stress=True)
        ends = on_device["ptr"].tolist()
        energies = output["energy"].detach().cpu().double().numpy()
        forces = output["forces"].detach().cpu().double().numpy()
        stresses = output["stress"].detach().cpu().double().numpy()
        found += [
            Prediction(float(energies[i]), forces[ends[i] : ends[i + 1]], stresses[i])
            for i in range(len(ends) - 1)
        ]
    return found


def invariant_size(network: Any) -> int:
    """Columns of ``node_features``."""
    return int(sum(product.linear.irreps_out.count("0e") for product in network.products))


def node_features(
    network: Any, crystals: Sequence[Crystal], *, batch_size: int = 32
) -> list[FloatArray]:
    """By crystal (n, k): what the network knows of each atom after all layers, the parts that
    rotations leave alone.
    """
    dtype = next(network.parameters()).dtype
    numbers, cutoff, head = (
        numbers_of(network),
        cutoff_of(network),
        getattr(network, "heads", ["Default"])[-1],
    )
    kept: list[int] = []
    start = 0
    for product in network.products:
        irreps = product.linear.irreps_out
        for part, (_, irrep) in zip(irreps.slices(), irreps, strict=True):
            if irrep.l == 0:
                kept += range(start + part.start, start + part.stop)
        start += irreps.dim
    with default_dtype(dtype):
        graphs = [graph(crystal, numbers, cutoff, head=head) for crystal in crystals]
    found: list[FloatArray] = []
    for batch in batches(graphs, batch_size):
        output = network(batch, training=False, compute_force=False)
        features = output["node_feats"].detach().double().numpy()[:, kept]
        ends = batch["ptr"].tolist()
        found += [features[ends[i] : ends[i + 1]] for i in range(len(ends) - 1)]
    return found


class default_dtype:  # noqa: N801
    """Torch's default precision for the time of a block; MACE's graphs are made in it."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def __enter__(self) -> None:
        self._before = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self._before)


def scales_of(
    crystals: Sequence[Crystal],
    energies: FloatArray,
    forces: Sequence[FloatArray],
    numbers: Sequence[int],
    cutoff: float,
) -> Scales:
    """Energies of the elements by least squares over compositions; the spread is the forces' root
    mean square.
    """
    counts = np.array(
        [[int(np.sum(crystal.numbers == number)) for number in numbers] for crystal in crystals],
        dtype=float,
    )
    element_energies, *_ = np.linalg.lstsq(counts, energies, rcond=1e-6)
    edges = sum(graph(crystal, numbers, cutoff).edge_index.shape[1] for crystal in crystals)
    atoms = sum(len(crystal) for crystal in crystals)
    spread = math.sqrt(float(np.mean(np.concatenate([force.ravel() for force in forces]) ** 2)))
    return Scales(
        tuple(numbers), tuple(element_energies.tolist()), 0.0, max(spread, 0.05), edges / atoms
    )
