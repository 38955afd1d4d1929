"""What people said of a campaign's course, as it stands."""

from __future__ import annotations

from dataclasses import dataclass, field

from campaign.clock import utc
from campaign.ledger import events as ev


@dataclass
class Controls:
    """Folded from the controls among a ledger's events. ``history``: all of them with the times of
    their events.
    """

    history: list[tuple[float, ev.AnyControl]] = field(default_factory=list)
    paused: tuple[float, ev.CampaignPaused] | None = None
    labels: int = 0
    """Labels that the budget holds beyond the config's."""
    vetoed: dict[str, ev.CandidateVetoed] = field(default_factory=dict)

    banned: dict[str, ev.ElementBanned] = field(default_factory=dict)
    """By element."""

    kept_back: dict[str, None] = field(default_factory=dict)
    """Candidates that bans or vetoes keep from being chosen; each is offered again when a ban of
    what it holds ends, unless another bars it.
    """

    approved: dict[str, ev.CandidateApproved] = field(default_factory=dict)
    held: dict[tuple[str, str], ev.ChoiceRow] = field(default_factory=dict)
    """What decisions chose and has to be approved, by candidate and oracle; kept until it is chosen
    again.
    """

    pinned: dict[str, ev.CrystalsPinned] = field(default_factory=dict)

    @property
    def pause(self) -> str:
        """Since when and by whom it is paused; empty where it is not."""
        if self.paused is None:
            return ""
        since, event = self.paused
        return (
            f"since {utc(since)} by {event.by}: no label begins until `oreloop control` resumes it"
        )


def told(event: ev.AnyControl) -> str:
    """A control in words, with who asked for it."""
    return f"{_what(event)} by {event.by}"


def _what(event: ev.AnyControl) -> str:
    match event:
        case ev.CampaignPaused():
            return "paused"
        case ev.CampaignResumed():
            return "resumed"
        case ev.LabelsChanged():
            return f"budget changed by {event.labels:+d} labels"
        case ev.CandidateVetoed():
            withdrawn = ", ".join(row.oracle for row in event.withdrawn)
            return f"vetoed {event.candidate}" + (
                f", withdrawn from {withdrawn}," if withdrawn else ""
            )
        case ev.ElementBanned():
            withdrawn = (
                f", {len(event.withdrawn)} selected labels withdrawn," if event.withdrawn else ""
            )
            return f"banned {event.element}{withdrawn}"
        case ev.ElementUnbanned():
            return f"unbanned {event.element}"
        case ev.CandidateApproved():
            return f"approved {event.candidate}"
        case ev.CrystalsGiven():
            verb = "pinned" if isinstance(event, ev.CrystalsPinned) else "injected"
            refused = [row for row in event.rows if row.screen]
            why = (
                f" ({len(refused)} refused, such as {refused[0].name}: {refused[0].reason})"
                if refused
                else ""
            )
            return f"{verb} {len(event.rows) - len(refused)} crystals of {event.source}{why}"


def named_in(event: ev.AnyControl) -> tuple[str, ...]:
    """The candidates that a control is about."""
    match event:
        case ev.CandidateVetoed() | ev.CandidateApproved():
            return (event.candidate,)
        case ev.CrystalsGiven():
            return tuple(row.candidate for row in event.rows)
        case ev.ElementBanned():
            return tuple(row.candidate for row in event.withdrawn)
    return ()
