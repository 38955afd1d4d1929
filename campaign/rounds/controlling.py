"""Live controls: what people change in a campaign's course, while a driver runs it and while none
does.

The ledger has one writer. So each control is left as a request, and whoever holds the ledger's lock
makes it an event: a running driver in its loop, or the asking process itself where there is none.
Nothing else tells the two apart.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from campaign.config.loaded import LoadedConfig
from campaign.decide import budget
from campaign.decide.predicting import crystal_of
from campaign.errors import CampaignLockedError, InputError, SurroundingsError
from campaign.ledger import CampaignState, Ledger
from campaign.ledger import events as ev
from campaign.ledger.engines import CONFIG_COPY
from campaign.ledger.events import AnyControl
from campaign.ledger.state import Pair
from campaign.rounds import pinning, requests
from campaign.rounds.requests import Request
from campaign.types import Crystal
from campaign.views.explain import resolve

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from campaign.api import Campaign

    Structures = str | Path | Sequence[Crystal | Structure | Atoms]

_PATIENCE_SECONDS, _LOOK_SECONDS = 10.0, 0.05

Kind = TypeVar("Kind", bound=ev.Controlled)


class Control:
    """Changes a campaign's course. Each method returns the event that the ledger holds, or None
    where a driver was asked that is busy yet.

    Raises InputError for what makes no sense in this campaign, SurroundingsError where there is
    none or its folder cannot be written.
    """

    def __init__(self, campaign: Campaign, opened: Callable[[], Ledger]) -> None:
        """``opened`` opens the campaign's ledger to write to. Raises CampaignLockedError where
        another driver holds it.
        """
        if not (campaign.folder / CONFIG_COPY).exists():
            raise SurroundingsError(
                f"there is no campaign in {campaign.folder}",
                hint="start one with `oreloop run CONFIG.yaml`",
            )
        self._campaign, self._opened = campaign, opened

    def pause(self) -> AnyControl | None:
        """No label begins until ``resume``; those under way end and are recorded, and the driver
        waits.
        """
        return self._ask(asked(ev.CampaignPaused))

    def resume(self) -> AnyControl | None:
        """Go on after a pause."""
        return self._ask(asked(ev.CampaignResumed))

    def budget(self, labels: int) -> AnyControl | None:
        """So many labels more than the budget holds now, or fewer."""
        return self._ask(asked(ev.LabelsChanged, labels=labels))

    def veto(self, candidate: str) -> AnyControl | None:
        """Never choose a candidate, named by its id or first digits; what was selected of it and
        has not begun is withdrawn.
        """
        return self._ask(
            asked(ev.CandidateVetoed, candidate=resolve(self._campaign.state(), candidate))
        )

    def approve(self, candidate: str) -> AnyControl | None:
        """Let a candidate, named by its id or first digits, climb to the levels before which the
        config asks for approval.
        """
        return self._ask(
            asked(ev.CandidateApproved, candidate=resolve(self._campaign.state(), candidate))
        )

    def ban(self, element: str) -> AnyControl | None:
        """Never choose a candidate with an element; those that wait are refused, and what was
        selected of them and has not begun is withdrawn. Labels stand.
        """
        return self._ask(asked(ev.ElementBanned, element=element))

    def unban(self, element: str) -> AnyControl | None:
        """End a ban: what it alone kept back may be chosen again, what it withdrew too."""
        return self._ask(asked(ev.ElementUnbanned, element=element))

    def pin(self, structures: Structures) -> AnyControl | None:
        """Label crystals next, of a file or folder, or given as objects. They pass the built-in
        screens, not those that the config adds; one that equals a candidate stands for it.
        """
        return self._give(ev.CrystalsPinned, structures)

    def inject(self, structures: Structures) -> AnyControl | None:
        """Crystals into the pool, as ``pin`` takes them; decisions weigh them as all others."""
        return self._give(ev.CrystalsInjected, structures)

    def _give(
        self, kind: type[ev.CrystalsPinned | ev.CrystalsInjected], structures: Structures
    ) -> AnyControl | None:
        if isinstance(structures, str | Path):
            source, found = str(structures), pinning.read(Path(structures))
        else:
            crystals = [crystal_of(item) for item in structures]
            source, found = (
                "Python",
                {
                    crystal.id: (f"crystal {i}", crystal)
                    for i, crystal in enumerate(crystals, start=1)
                },
            )
        if not found:
            raise InputError("expected crystals, found none")
        event = asked(kind, source=source, rows=pinning.rows_of(found))
        return self._ask(
            event, {identity: crystal.to_bytes() for identity, (_, crystal) in found.items()}
        )

    def _ask(
        self, control: AnyControl, crystals: Mapping[str, bytes] | None = None
    ) -> AnyControl | None:
        campaign = self._campaign
        check(campaign.loaded, campaign.state(), control)
        path = requests.leave(
            campaign.folder, Request(control=control, crystals=dict(crystals or {}))
        )
        if not self._take(path):
            return None
        if (refused := requests.refusal(path)) is not None:
            message, hint = refused
            raise InputError(message, hint=hint)
        history = reversed(campaign.state().controls.history)
        return next((event for _, event in history if event.key == requests.key_of(path)), None)

    def _take(self, path: Path) -> bool:
        """Take the requests that wait where nobody else holds the ledger; False where a driver does
        that is busy for too long.
        """
        until = time.monotonic() + _PATIENCE_SECONDS
        while path.exists():
            try:
                with closing(self._opened()) as ledger:
                    take_up(self._campaign.loaded, ledger)
                    return True
            except CampaignLockedError:
                if time.monotonic() >= until:
                    return False
                time.sleep(_LOOK_SECONDS)
        return True


def asked(kind: type[Kind], **fields: Any) -> Kind:
    """A control that this user asks for now."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"user {os.getuid()}"
    return kind(by=f"{name}@{socket.gethostname()}", asked=time.time(), **fields)


def take_up(
    loaded: LoadedConfig, ledger: Ledger, running: Collection[Pair] = ()
) -> list[AnyControl]:
    """Make events of the requests that wait, in the order in which they were left. ``running``:
    pairs whose labels are under way.
    """
    taken: list[AnyControl] = []
    for path, request in requests.waiting(ledger.folder):
        key = requests.key_of(path)
        if key not in ledger.state.keys:
            try:
                check(loaded, ledger.state, request.control)
                event, blobs = _completed(loaded, ledger, request, running)
            except InputError as error:
                requests.refuse(path, error.message, error.hint)
                continue
            event = msgspec.structs.replace(event, key=key)
            ledger.append([event], blobs)
            taken.append(event)
        requests.done(path)
    return taken


def check(loaded: LoadedConfig, state: CampaignState, control: AnyControl) -> None:
    """Raises InputError for a control that makes no sense as a campaign stands."""
    match control:
        case ev.LabelsChanged():
            limit = budget.labels_limit(state, loaded.config)
            if limit is None:
                raise InputError(
                    "this campaign's budget limits no labels",
                    hint="give budget.labels in its config and run it",
                )
            if control.labels == 0 or limit + control.labels < 1:
                raise InputError(
                    f"expected a change that leaves a label or more, found {control.labels:+d} "
                    f"to {limit} labels"
                )
        case ev.ElementBanned():
            _check_ban(loaded, state, control.element)
        case ev.ElementUnbanned():
            if control.element not in state.controls.banned:
                raise InputError(
                    f"{control.element!r} is not banned", hint="`oreloop status` lists what is"
                )
        case ev.CandidateVetoed() | ev.CandidateApproved():
            levels = loaded.config.fidelities
            if isinstance(control, ev.CandidateApproved) and (
                levels is None or levels.approval is None
            ):
                raise InputError(
                    "this campaign asks for no approval",
                    hint="name a level: fidelities: {approval: {before: LEVEL}}",
                )
            if control.candidate not in state.candidates:
                raise InputError(
                    f"no candidate has the id {control.candidate!r}",
                    hint="`oreloop export` and the report list all ids",
                )


def _check_ban(loaded: LoadedConfig, state: CampaignState, element: str) -> None:
    space = loaded.config.search_space
    if element not in space.elements:
        raise InputError(
            f"expected an element of this campaign's space, {', '.join(space.elements)}, found "
            f"{element!r}"
        )
    if (
        element in loaded.config.space.ratios
        or not space.without([*state.controls.banned, element]).has_compositions
    ):
        raise InputError(
            f"without {element} no composition is left in this campaign's space",
            hint="it has to be in every candidate",
        )


def _completed(
    loaded: LoadedConfig, ledger: Ledger, request: Request, running: Collection[Pair]
) -> tuple[AnyControl, Mapping[str, bytes]]:
    """A control with what only whoever holds the ledger knows, and the crystals that it brings."""
    state, control = ledger.state, request.control
    match control:
        case ev.CandidateVetoed():
            return msgspec.structs.replace(
                control, withdrawn=_withdrawn(state, {control.candidate}, running)
            ), {}
        case ev.ElementBanned():
            holding = {
                candidate
                for candidate, _ in state.pending
                if control.element in state.counts(candidate)
            }
            return msgspec.structs.replace(
                control, withdrawn=_withdrawn(state, holding, running)
            ), {}
        case ev.CrystalsPinned() | ev.CrystalsInjected():
            return pinning.judged(loaded, ledger, control, request.crystals)
    return control, {}


def _withdrawn(
    state: CampaignState, candidates: Collection[str], running: Collection[Pair]
) -> tuple[ev.PairRow, ...]:
    """What was selected of candidates and has not begun; what energies refer to is not selected."""
    pairs = (
        pair
        for pair in state.pending
        if pair[0] in candidates and pair not in running and pair not in state.requested
    )
    return tuple(ev.PairRow(*pair) for pair in pairs)
