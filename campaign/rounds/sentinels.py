"""Sentinels: reference crystals scored again and again, so that an oracle that drifts is noticed
before its labels are believed.

A drift is a change of a scalar quantity from its first value in this campaign (another build, a
changed file, another machine), a value that is not what is known from elsewhere, or a failure where
there was a value.
"""

from __future__ import annotations

from collections.abc import Sequence

from campaign.config.schema import CampaignConfig
from campaign.errors import OracleDriftedError
from campaign.ledger import CampaignState
from campaign.ledger import events as ev

_DRIFTED = " has drifted: "
_SMALL = 1e-3
"""Values near zero are compared with tolerance times this, in the quantity's unit, at least."""


def watched(config: CampaignConfig) -> list[str]:
    """The oracles that sentinels watch."""
    if config.sentinels is None:
        return []
    return list(config.sentinels.oracles or [oracle.label for oracle in config.oracles])


def drift(
    event: ev.SentinelScored,
    earlier: Sequence[ev.SentinelScored],
    config: CampaignConfig,
    name: str,
) -> str:
    """What drifted, in words; empty where nothing did. ``name``: the element or binary that the
    crystal is.
    """
    assert config.sentinels is not None
    if event.message:
        return f"{name} cannot be scored: {event.message}"
    now = _scalars(event)
    for known in config.sentinels.expected:
        if (
            known.element == name
            and known.quantity in now
            and abs(now[known.quantity] - known.value) > known.tolerance
        ):
            return (
                f"{known.quantity} of {name} is {now[known.quantity]:.6g}, known is "
                f"{known.value:g} +- {known.tolerance:g}"
            )
    first = next((old for old in earlier if not old.message), None)
    if first is None:
        return ""
    for quantity, value in _scalars(first).items():
        allowed = config.sentinels.tolerance * max(abs(value), _SMALL)
        if quantity not in now:
            return (
                f"{quantity} of {name} was {value:.6g} ({first.occasion}) and is not given any more"
            )
        if abs(now[quantity] - value) > allowed:
            change = (
                f"was {value:.6g} ({first.occasion}), is {now[quantity]:.6g} ({event.occasion})"
            )
            return f"{quantity} of {name} {change}, allowed +- {allowed:.2g}"
    return ""


def is_drift(reason: str) -> bool:
    """Whether a session ended for this reason because an oracle drifted."""
    return reason.startswith("oracle ") and _DRIFTED in reason


def refuse_drift(state: CampaignState, oracle: str, what: str) -> None:
    """Raises OracleDriftedError."""
    raise OracleDriftedError(
        f"oracle {oracle}{_DRIFTED}{what}",
        hint="find what changed (potential file, engine's build, user module, machine) and "
        "restore it; "
        f"{sum(label.oracle == oracle for label in state.own_labels)} labels of it stand from "
        "before. A changed oracle is a new campaign",
    )


def _scalars(event: ev.SentinelScored) -> dict[str, float]:
    return {
        row.quantity: float(row.value)
        for row in event.observations
        if isinstance(row.value, int | float)
    }
