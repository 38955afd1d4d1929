"""The events of a campaign: the only things that are ever written down, and all that a campaign is.

Rows that come in thousands are stored as arrays, so that folding 10^5 candidates takes seconds.

An event is written as JSON. What JSON cannot say (NaN, infinities, lone surrogates, integers beyond
64 bits) makes it a JSON string that holds the text of Python's own JSON, so that whatever an oracle
answers is read back as it was.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from campaign import text


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    """Base of all events. ``key`` is made of the content of a piece of work; a second event under a
    known key is dropped.

    ``awake``: seconds that the driver's process was awake by then, by a clock that never jumps; on
    the first event of a transaction, on none of older ledgers.
    """

    key: str | None = None
    awake: float | None = None


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of the rows inside an event."""


class CampaignCreated(Event, frozen=True, kw_only=True):
    campaign: str
    name: str
    seed: int


class ConfigRevised(Event, frozen=True, kw_only=True):
    """The whole resolved config from here on; ``accepted`` names what the user allowed to change.

    ``code``: hashes of the user's own modules by component; empty in ledgers that are older than
    that.
    """

    revision: int
    sha256: str
    config: dict[str, Any]
    fidelities: dict[str, str]
    accepted: tuple[str, ...] = ()
    code: dict[str, str] = {}


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
    """A crystal of a source; ``name`` is what it is called there, ``facts`` what else the source
    says of it.
    """

    candidate: str
    equivalence: str
    observations: tuple[ObservationRow, ...]
    name: str = ""
    facts: dict[str, Any] = {}


class Imported(Event, frozen=True, kw_only=True):
    """All candidates that a file or another ledger holds; with observations they are labels of
    ``oracle``, made elsewhere.

    The rows take the place of those of the last import of the same ``purpose``, ``source`` and
    ``oracle``: labels that are not among them any more are withdrawn. In older ledgers, where
    ``purpose`` is empty, they were added to them, unscreened.
    """

    source: str
    sha256: str
    oracle: str
    fidelity: str
    rows: tuple[ImportedRow, ...]
    purpose: str = ""


class RoundStarted(Event, frozen=True, kw_only=True):
    """A round begins; it sees the labels that stand in the ledger before this event and no later
    one.

    ``asked``: how many candidates somebody asked it for, in place of the config's batch size.
    """

    round: int
    asked: int | None = None


class Trained(Event, frozen=True, kw_only=True):
    """A generator learned; ``checkpoint`` is the hash of its artifact, used from now on where
    ``is_published``.
    """

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
    """What a generator proposed; ``asked`` is for how many, 0 where the ledger is older than
    that.
    """

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


class Screened(Event, frozen=True, kw_only=True):
    """Verdicts outside of a round, on ``occasion`` of an import or of changed bounds; they take the
    place of earlier ones.
    """

    occasion: str
    verdicts: tuple[VerdictRow, ...]


CLIMBING = ("gate", "audit")
REFERENCE, PHASE, KNOWN_PHASE = "reference", "phase", "known phase"
"""Purposes of what is labelled outside of rounds: what energies of formation and above the hull are
measured against.
"""
EXPLORATION = "exploration"
PINNED = "pinned"


class ChoiceRow(Row, frozen=True):
    """A chosen candidate with its score and the model's mean and standard deviation, where a model
    was asked.

    ``reason`` tells why it climbs to a costlier level, ``gate`` (score: its label below) or
    ``audit``, that it was drawn at random for ``exploration``, or that people had it ``pinned``;
    empty where acquisition chose it. ``stable``: how likely it was to lie on the hull at the
    highest level.
    """

    candidate: str
    oracle: str
    score: float | None = None
    mean: float | None = None
    deviation: float | None = None
    reason: str = ""
    stable: float | None = None


class Decided(Event, frozen=True, kw_only=True):
    """A batch was selected. ``table`` is the blob with the scores of the whole pool; ``pending``
    was taken into account.

    ``as_of``: the last event that the decision knew, 0 where the ledger is older than that and the
    decision cannot be asked again. ``outcomes``: how many of the pool a committee found accurate,
    worth labelling and too strange. ``costs``: seconds per label by oracle as known then.
    ``scales``: factors on the model's standard deviations by quantity. ``held``: what was chosen
    and waits until people approve it.
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
    as_of: int = 0
    held: tuple[ChoiceRow, ...] = ()


class RequestRow(Row, frozen=True):
    """``name``: what the crystal's source calls it."""

    candidate: str
    equivalence: str
    oracle: str
    name: str = ""


class Requested(Event, frozen=True, kw_only=True):
    """Labels wanted outside of a round's selection: the elements' crystals, to which formation
    energies refer, and competing phases.
    """

    purpose: str
    rows: tuple[RequestRow, ...]


class SentinelScored(Event, frozen=True, kw_only=True):
    """A reference crystal was scored again, at ``occasion``; never a label. Without observations it
    failed with ``message``.
    """

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
    """An attempt gave no label. Where ``is_quarantined`` the candidate is not tried again, unless
    it is ``Retried``.
    """

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


class RetriedRow(Row, frozen=True):
    """``round``: the one that selected the pair; -1 where none did."""

    candidate: str
    oracle: str
    round: int


class Retried(Event, frozen=True, kw_only=True):
    """What was given up gets another chance: its failures so far count no more."""

    reason: str
    rows: tuple[RetriedRow, ...]


class OraclePaused(Event, frozen=True, kw_only=True):
    oracle: str
    reason: str


class PairRow(Row, frozen=True):
    candidate: str
    oracle: str


class Controlled(Event, frozen=True, kw_only=True):
    """Base of what people change in a campaign's course: ``by`` whom, and when it was ``asked``
    for, in seconds since the epoch.
    """

    by: str
    asked: float


class CampaignPaused(Controlled, frozen=True, kw_only=True):
    """No label begins from here on until ``CampaignResumed``."""


class CampaignResumed(Controlled, frozen=True, kw_only=True):
    """Work goes on."""


class LabelsChanged(Controlled, frozen=True, kw_only=True):
    """The budget holds so many ``labels`` more than the config says, or fewer."""

    labels: int


class CandidateVetoed(Controlled, frozen=True, kw_only=True):
    """Nobody chooses a candidate any more. ``withdrawn``: what was selected of it and had not
    begun.
    """

    candidate: str
    withdrawn: tuple[PairRow, ...] = ()


class ElementBanned(Controlled, frozen=True, kw_only=True):
    """Nobody chooses a candidate with an element any more. ``withdrawn``: what was selected of them
    and had not begun.
    """

    element: str
    withdrawn: tuple[PairRow, ...] = ()


class ElementUnbanned(Controlled, frozen=True, kw_only=True):
    """A ban ends: what it alone kept back may be chosen again."""

    element: str


class CandidateApproved(Controlled, frozen=True, kw_only=True):
    """A candidate may climb to the levels that the config closes until people approve."""

    candidate: str


class PinnedRow(Row, frozen=True):
    """A crystal that people want labelled; ``screen`` refused it, for a ``reason``, where it is
    named.
    """

    candidate: str
    equivalence: str
    name: str = ""
    screen: str = ""
    reason: str = ""


class CrystalsGiven(Controlled, frozen=True, kw_only=True):
    """Crystals of a ``source`` that people brought."""

    source: str
    rows: tuple[PinnedRow, ...]


class CrystalsPinned(CrystalsGiven, frozen=True, kw_only=True):
    """Given crystals that the next decisions choose before all others."""


class CrystalsInjected(CrystalsGiven, frozen=True, kw_only=True):
    """Given crystals that enter the pool, where decisions weigh them as all others."""


class RoundEnded(Event, frozen=True, kw_only=True):
    """Everything that the round selected is labelled or quarantined."""

    round: int


class Lost(Event, frozen=True, kw_only=True):
    """Stands where an event was lost, so that later ones keep their sequence.

    ``remains`` is the text of an event that was found whole, but cannot stand without others that
    were lost.
    """

    reason: str
    remains: str = ""


AnyControl = (
    CampaignPaused
    | CampaignResumed
    | LabelsChanged
    | CandidateVetoed
    | ElementBanned
    | ElementUnbanned
    | CandidateApproved
    | CrystalsPinned
    | CrystalsInjected
)

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
    | Screened
    | Decided
    | Requested
    | SentinelScored
    | Labelled
    | Failed
    | Retried
    | OraclePaused
    | AnyControl
    | RoundEnded
    | Lost
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AnyEvent).decode
_decode_text = msgspec.json.Decoder(str).decode


def written(event: Event) -> tuple[bytes, Event]:
    """An event's text, and the event as it will be read from it: what the live state folds too, so
    that it is what a resumed one folds.
    """
    try:
        text = _encode(event)
        found = _decode(text)
        if found == event or _plain(found) == _plain(event):
            return text, found
    except (UnicodeEncodeError, OverflowError, msgspec.ValidationError):
        pass
    text = _encode(_plain(event))
    return text, decode(text)


def encode(event: Event) -> bytes:
    """The text of an event."""
    return written(event)[0]


def decode(text: bytes) -> Event:
    """The event of a text. Raises ValueError where it is none."""
    found: Event = (
        msgspec.convert(json.loads(_decode_text(text)), AnyEvent)
        if text[:1] == b'"'
        else _decode(text)
    )
    return found


def _plain(event: Event) -> str:
    return json.dumps(msgspec.to_builtins(event))


_Kind = TypeVar("_Kind", bound=Event)


def storable(event: _Kind) -> _Kind:
    """The event itself, or where a text in it cannot be encoded (a lone surrogate) the same with
    that text's escape.
    """
    try:
        _encode(event)
    except UnicodeEncodeError:
        return msgspec.convert(text.storable(msgspec.to_builtins(event)), type(event))
    return event
