"""oreloop: active-learning campaigns for materials discovery. All that users and authors of
plug-ins need, by one import.

Campaigns: ``Campaign``, ``Control``. Oracles: ``Crystal``, ``Quantity``, ``Observation``,
``Evaluation``, ``Failure``, ``FailureKind``. Generators: ``Proposal``, ``GenerationContext``,
``Checkpoint``. Screens: ``Candidate``, ``SearchSpace``, ``Verdict``. Kits of checks:
``check_oracle``, ``check_generator``, ``check_surrogate``, ``check_embedder``, ``check_screen``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from campaign import __version__
    from campaign.api import Campaign
    from campaign.errors import InputError, OreloopError
    from campaign.parameters import ConfigPath
    from campaign.protocols import (
        Embedder,
        FittedSurrogate,
        GenerationContext,
        Generator,
        HasElements,
        HasFidelity,
        NeedsLabels,
        Oracle,
        Screen,
        Surrogate,
        Trainable,
    )
    from campaign.rounds.asking import OpenQuestion
    from campaign.rounds.controlling import Control
    from campaign.testing import (
        check_embedder,
        check_generator,
        check_oracle,
        check_screen,
        check_surrogate,
    )
    from campaign.types import (
        Candidate,
        Checkpoint,
        Cost,
        Crystal,
        Evaluation,
        Failure,
        FailureKind,
        Fidelity,
        LabelledCandidate,
        Objective,
        Observation,
        Proposal,
        Quantity,
        SearchSpace,
        Verdict,
    )

_HOMES = {
    "campaign": ("__version__",),
    "campaign.api": ("Campaign",),
    "campaign.rounds.asking": ("OpenQuestion",),
    "campaign.rounds.controlling": ("Control",),
    "campaign.errors": ("InputError", "OreloopError"),
    "campaign.parameters": ("ConfigPath",),
    "campaign.protocols": (
        "Embedder",
        "FittedSurrogate",
        "GenerationContext",
        "Generator",
        "HasElements",
        "HasFidelity",
        "NeedsLabels",
        "Oracle",
        "Screen",
        "Surrogate",
        "Trainable",
    ),
    "campaign.testing": (
        "check_embedder",
        "check_generator",
        "check_oracle",
        "check_screen",
        "check_surrogate",
    ),
    "campaign.types": (
        "Candidate",
        "Checkpoint",
        "Cost",
        "Crystal",
        "Evaluation",
        "Failure",
        "FailureKind",
        "Fidelity",
        "LabelledCandidate",
        "Objective",
        "Observation",
        "Proposal",
        "Quantity",
        "SearchSpace",
        "Verdict",
    ),
}

__all__ = [
    "Campaign",
    "Candidate",
    "Checkpoint",
    "ConfigPath",
    "Control",
    "Cost",
    "Crystal",
    "Embedder",
    "Evaluation",
    "Failure",
    "FailureKind",
    "Fidelity",
    "FittedSurrogate",
    "GenerationContext",
    "Generator",
    "HasElements",
    "HasFidelity",
    "InputError",
    "LabelledCandidate",
    "NeedsLabels",
    "Objective",
    "Observation",
    "OpenQuestion",
    "Oracle",
    "OreloopError",
    "Proposal",
    "Quantity",
    "Screen",
    "SearchSpace",
    "Surrogate",
    "Trainable",
    "Verdict",
    "__version__",
    "check_embedder",
    "check_generator",
    "check_oracle",
    "check_screen",
    "check_surrogate",
]

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Names are imported when they are first asked for, so that ``import oreloop`` takes no
    time.
    """
    if name not in _HOME_OF:
        raise AttributeError(f"module 'oreloop' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
