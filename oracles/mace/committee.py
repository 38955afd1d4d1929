"""The committee ``mace_committee``: MACE networks trained in the loop on the campaign's own
energies, forces and stresses.

Members differ by their first weights and the order of their data. How much they disagree on a
crystal is told by the standard deviation of the force vector of an atom over the members: its
largest value over the atoms, the error indicator of DP-GEN (Zhang et al., Phys. Rev. Mater. 3,
023804 (2019), eq. 4), and the root of its squares' sum over the atoms, the error that a label would
show. A fixed part of the labels, chosen by a hash of the crystal alone, is never trained on; its
force error decides whether new members are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from ase.data import atomic_numbers
from ase.units import GPa
from pydantic import Field

from campaign.errors import InputError
from campaign.parameters import ConfigPath, Former, Formers, Parameters
from campaign.protocols import GenerationContext
from campaign.types import (
    ENERGY_PER_ATOM,
    FORCES,
    PROPOSED_ENERGY,
    PROPOSED_FORCES,
    PROPOSED_STRESS,
    STRESS,
    Checkpoint,
    Crystal,
    FloatArray,
    LabelledCandidate,
    Quantity,
)
from oracles.mace import network as networks
from oracles.mace.files import sha256_of
from oracles.mace.network import ArchitectureConfig
from oracles.mace.store import Origin, members_of, origin_of, to_checkpoint
from oracles.mace.training import Errors, Frame, TrainingConfig, errors, train

_HASH_DIGITS = 8


class CommitteeConfig(Parameters):
    former: ClassVar[Formers] = {
        "min_labels": Former("least_labels"),
    }

    members: int = Field(3, ge=2, description="Networks.")
    architecture: ArchitectureConfig = ArchitectureConfig()
    training: TrainingConfig = TrainingConfig()
    foundation: ConfigPath | None = Field(
        None, description="A MACE file to fine-tune, in place of architecture."
    )
    held_out: float = Field(
        0.1,
        gt=0,
        lt=0.5,
        description="Share of the labels (1) that are kept for the error that decides.",
    )
    min_labels: int = Field(20, ge=5, description="Labels from which on the committee is trained.")
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="Where the networks are trained and asked."
    )
    from_scratch: bool = Field(
        False, description="Begin each training with new weights, not with the last committee's."
    )


class MaceCommittee:
    Config = CommitteeConfig

    def __init__(self, config: CommitteeConfig) -> None:
        self.config = config
        self.foundation_sha256 = sha256_of(config.foundation) if config.foundation else ""

    def is_ready(self, labelled: Sequence[LabelledCandidate]) -> bool:
        """Whether there are labels enough to train on."""
        return len(labelled) >= self.config.min_labels

    def train(
        self,
        labelled: Sequence[LabelledCandidate],
        *,
        rng: np.random.Generator,
        context: GenerationContext,
    ) -> Checkpoint:
        """New members, from the last committee's weights where there are some. Raises InputError
        where labels have no forces.
        """
        known = [item for item in labelled if not is_held_out(item, self.config.held_out)]
        frames = frames_of(known)
        old = context.checkpoint
        if old is not None and not self.config.from_scratch:
            origin, members = origin_of(old), members_of(old)
        else:
            origin = self._origin(frames, context)
            members = [
                origin.blank(int(seed)) for seed in rng.integers(2**31, size=self.config.members)
            ]
        trained = [
            train(member, frames, self.config.training, rng=rng, device=self.config.device)
            for member in members
        ]
        found = self._errors(trained, labelled)
        return to_checkpoint(trained, origin, {"trained_on": float(len(frames)), **found})

    def is_improvement(
        self,
        new: Checkpoint,
        old: Checkpoint | None,
        labelled: Sequence[LabelledCandidate],
        *,
        context: GenerationContext,
    ) -> tuple[bool, Mapping[str, float]]:
        """Whether the held-out force error fell; the old members are asked again, on all that is
        held out by now.
        """
        if old is None:
            return True, {}
        before = self._errors(members_of(old), labelled)["held_out_forces"]
        return bool(new.metrics.get("held_out_forces", 0.0) <= before), {
            "held_out_forces_before": before
        }

    def disagreement(
        self, crystals: Sequence[Crystal], checkpoint: Checkpoint
    ) -> tuple[FloatArray, FloatArray]:
        """(n,) largest standard deviation of the force on an atom over the members, and (n,) over
        all atoms; eV/angstrom, batched.
        """
        device = self.config.device
        found = [
            networks.predict(member.to(device), crystals, device=device)
            for member in members_of(checkpoint)
        ]
        pairs = np.array(
            [
                force_disagreement([member[i].forces for member in found])
                for i in range(len(crystals))
            ]
        )
        return pairs[:, 0], pairs[:, 1]

    def _origin(self, frames: Sequence[Frame], context: GenerationContext) -> Origin:
        if self.config.foundation is not None:
            return Origin(
                foundation=str(self.config.foundation), foundation_sha256=self.foundation_sha256
            )
        numbers = sorted(atomic_numbers[symbol] for symbol in context.space.elements)
        scales = networks.scales_of(
            [frame.crystal for frame in frames],
            np.array([frame.energy for frame in frames]),
            [frame.forces for frame in frames],
            numbers,
            self.config.architecture.cutoff,
        )
        return Origin(architecture=self.config.architecture, scales=scales)

    def _errors(
        self, members: Sequence[torch.nn.Module], labelled: Sequence[LabelledCandidate]
    ) -> dict[str, float]:
        """Means over the members of the errors on what is held out: energy in meV/atom, forces in
        eV/angstrom.
        """
        frames = frames_of([item for item in labelled if is_held_out(item, self.config.held_out)])
        if not frames:
            return {
                "held_out": 0.0,
                "held_out_forces": float("inf"),
                "held_out_energy_mev": float("inf"),
            }
        found: list[Errors] = [
            errors(member.to(self.config.device), frames, device=self.config.device)
            for member in members
        ]
        return {
            "held_out": float(len(frames)),
            "held_out_forces": float(np.mean([error.forces for error in found])),
            "held_out_energy_mev": 1000 * float(np.mean([error.energy for error in found])),
        }


def is_held_out(item: LabelledCandidate, share: float) -> bool:
    """By the candidate's id alone, so that no label ever moves from one side to the other."""
    return bool(int(item.candidate.id[:_HASH_DIGITS], 16) < share * 16**_HASH_DIGITS)


def frames_of(labelled: Sequence[LabelledCandidate]) -> list[Frame]:
    """Labels with energy and forces as training frames; they belong to the relaxed crystal where
    there is one.

    The crystal as it was proposed is a frame too where the label has its forces.
    """
    frames = []
    for item in labelled:
        if FORCES.name not in item.arrays or ENERGY_PER_ATOM.name not in item.values:
            raise InputError(
                "a MACE committee learns from energies and forces, but these labels have none",
                hint="set measure: [forces] of the oracle",
            )
        crystal = item.relaxed or item.candidate.crystal
        frames.append(_frame(item, crystal, ENERGY_PER_ATOM, FORCES, STRESS))
        if PROPOSED_FORCES.name in item.arrays and PROPOSED_ENERGY.name in item.values:
            frames.append(
                _frame(
                    item, item.candidate.crystal, PROPOSED_ENERGY, PROPOSED_FORCES, PROPOSED_STRESS
                )
            )
    return frames


def _frame(
    item: LabelledCandidate, crystal: Crystal, energy: Quantity, forces: Quantity, stress: Quantity
) -> Frame:
    found = item.arrays.get(stress.name)
    return Frame(
        crystal,
        item.values[energy.name] * len(crystal),
        item.arrays[forces.name],
        found * GPa if found is not None else None,
    )


def force_disagreement(forces: Sequence[FloatArray]) -> tuple[float, float]:
    """For one (n, 3) array a member: s_i = sqrt(mean over members |F_i - <F_i>|^2), its largest
    value and sqrt(sum over atoms s_i^2).
    """
    stacked = np.stack(list(forces))
    variance = ((stacked - stacked.mean(0)) ** 2).sum(-1).mean(0)
    return float(np.sqrt(variance.max())), float(np.sqrt(variance.sum()))
