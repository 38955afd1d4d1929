"""The events of a campaign: the only things that are ever written down, and all that a campaign is.

Rows that come in thousands are stored as arrays, so that folding 10^5 candidates takes seconds.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from campaign import text


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    """Base of all events. ``key`` is made of the content of a piece of work; a second event under a known key is dropped."""

    key: str | None = None


class Row(msgspec.Struct, frozen=True, array_like=True):
    """Base of the rows inside an event."""


class CampaignCreated(Event, frozen=True, kw_only=True):
    campaign: str
    name: str
    seed: int


class ConfigRevised(Event, frozen=True, kw_only=True):
    """The whole resolved config from here on; ``accepted`` names what the user allowed to change."""

    revision: int
    sha256: str
    config: dict[str, Any]
    fidelities: dict[str, str]
    accepted: tuple[str, ...] = ()


class SessionStarted(Event, frozen=True, kw_only=True):
    host: str
    process: int
    versions: dict[str, str]


class SessionEnded(Event, frozen=True, kw_only=True):
    """The driver left in good order. ``is_final`` where the campaign itself is over."""

    reason: str
    is_final: bool = False


class TrackingStarted(Event, frozen=True, kw_only=True):
    run: str
    uri: str


class ObservationRow(Row, frozen=True):
    quantity: str
    value: Any
    unit: str
    noise: float | None = None


class ImportedRow(Row, frozen=True):
    candidate: str
    equivalence: str
    observations: tuple[ObservationRow, ...]


class Imported(Event, frozen=True, kw_only=True):
    """Candidates from a file or another ledger; with observations they are labels of ``oracle``, made elsewhere."""

    source: str
    sha256: str
    oracle: str
    fidelity: str
    rows: tuple[ImportedRow, ...]


class RoundStarted(Event, frozen=True, kw_only=True):
    """A round begins; it sees the labels that stand in the ledger before this event and no later one."""

    round: int


class Trained(Event, frozen=True, kw_only=True):
    """A generator learned; ``checkpoint`` is the hash of its artifact, used from now on where ``is_published``."""

    round: int
    generator: str
    checkpoint: str
    parent: str | None
    is_published: bool
    metrics: dict[str, float]
    seconds: float
    labels: int


class Fitted(Event, frozen=True, kw_only=True):
    """A surrogate was fitted to ``labels`` labels."""

    round: int
    model: str
    labels: int
    hyperparameters: dict[str, Any]
    seconds: float
    cpu_seconds: float


class ProposalRow(Row, frozen=True):
    candidate: str
    equivalence: str
    parents: tuple[str, ...] = ()
    condition: dict[str, Any] = {}


class Proposed(Event, frozen=True, kw_only=True):
    """What a generator proposed; ``asked`` is for how many, 0 where the ledger is older than that."""

    round: int
    generator: str
    checkpoint: str | None
    stream: str
    seconds: float
    proposals: tuple[ProposalRow, ...]
    asked: int = 0


class VerdictRow(Row, frozen=True):
    candidate: str
    is_accepted: bool
    screen: str
    reason: str = ""


class Judged(Event, frozen=True, kw_only=True):
    round: int
    verdicts: tuple[VerdictRow, ...]


CLIMBING = ("gate", "audit")
EXPLORATION = "exploration"


class ChoiceRow(Row, frozen=True):
    """A chosen candidate with its score and the model's mean and standard deviation, where a model was asked.

    ``reason`` tells why it climbs to a dearer level, ``gate`` (score: its label below) or ``audit``, or that it was drawn at random for
    ``exploration``; empty where acquisition chose it.
    """

    candidate: str
    oracle: str
    score: float | None = None
    mean: float | None = None
    deviation: float | None = None
    reason: str = ""


class Decided(Event, frozen=True, kw_only=True):
    """A batch was selected. ``table`` is the blob with the scores of the whole pool; ``pending`` was taken into account.

    ``outcomes``: how many of the pool a committee found accurate, worth labelling and too strange. ``costs``: seconds per label by oracle
    as known then. ``scales``: factors on the model's standard deviations by quantity.
    """

    round: int
    acquisition: str
    model: str | None
    model_labels: int
    stream: str
    pool: str
    pool_size: int
    table: str | None
    pending: tuple[str, ...]
    choices: tuple[ChoiceRow, ...]
    seconds: float
    labels_at_decision: int
    outcomes: dict[str, int] = {}
    costs: dict[str, float] = {}
    scales: dict[str, float] = {}


class RequestRow(Row, frozen=True):
    candidate: str
    equivalence: str
    oracle: str


class Requested(Event, frozen=True, kw_only=True):
    """Labels wanted outside of a round's selection: the elements' crystals, to which formation energies refer."""

    purpose: str
    rows: tuple[RequestRow, ...]


class SentinelScored(Event, frozen=True, kw_only=True):
    """A reference crystal was scored again, at ``occasion``; never a label. Without observations it failed with ``message``."""

    oracle: str
    fidelity: str
    candidate: str
    occasion: str
    observations: tuple[ObservationRow, ...]
    message: str
    wall_seconds: float
    worker: str


class Labelled(Event, frozen=True, kw_only=True):
    candidate: str
    oracle: str
    fidelity: str
    attempt: int
    observations: tuple[ObservationRow, ...]
    crystal: str | None
    artifacts: dict[str, str]
    wall_seconds: float
    cpu_seconds: float
    started: float
    worker: str


class Failed(Event, frozen=True, kw_only=True):
    """An attempt gave no label. Where ``is_quarantined`` the candidate is not tried again."""

    candidate: str
    oracle: str
    fidelity: str
    attempt: int
    kind: str
    message: str
    is_retryable: bool
    is_quarantined: bool
    wall_seconds: float
    cpu_seconds: float
    started: float
    worker: str


class OraclePaused(Event, frozen=True, kw_only=True):
    oracle: str
    reason: str


class RoundEnded(Event, frozen=True, kw_only=True):
    """Everything that the round selected is labelled or quarantined."""

    round: int


AnyEvent = (
    CampaignCreated
    | ConfigRevised
    | SessionStarted
    | SessionEnded
    | TrackingStarted
    | Imported
    | RoundStarted
    | Trained
    | Fitted
    | Proposed
    | Judged
    | Decided
    | Requested
    | SentinelScored
    | Labelled
    | Failed
    | OraclePaused
    | RoundEnded
)

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(AnyEvent).decode

_Kind = TypeVar("_Kind", bound=Event)


def storable(event: _Kind) -> _Kind:
    """The event itself, or where a text in it cannot be encoded (a lone surrogate) the same with that text's escape."""
    try:
        encode(event)
    except UnicodeEncodeError:
        return msgspec.convert(text.storable(msgspec.to_builtins(event)), type(event))
    return event
