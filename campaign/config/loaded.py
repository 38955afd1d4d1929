"""Configs from YAML: read, checked against the schema and the plug-ins, compared on resume.

Every error names file, line, the wrong key and the nearest right one.
"""

from __future__ import annotations

import copy
import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from campaign import plugins
from campaign.code import code_key, modules, of_oreloop
from campaign.config.checks import Location, Problem
from campaign.config.elements import problems_of_references
from campaign.config.schema import CampaignConfig, Component, OracleConfig
from campaign.crystals import abundance
from campaign.errors import InputError
from campaign.interpreters import InterpreterError, OracleElsewhere, describe, words_of
from campaign.parameters import as_recorded
from campaign.protocols import (
    Committee,
    EvaluatesMany,
    Generator,
    HasElements,
    HasTrial,
    MultiFidelity,
    Oracle,
    OracleSpec,
    PluginSpec,
    Screen,
    Surrogate,
    WaitsForPeople,
    asks_committee,
)
from campaign.reading.settings import text_of, yaml_of
from campaign.reading.wording import Mistake, mistakes
from campaign.seeds import content_hash
from campaign.types import DERIVED, ENERGY_PER_ATOM, PROPOSED_ENERGY, Fidelity, Quantity

_WALL_LIMIT = 600.0
"""Seconds for an evaluation where the config sets no limit."""


@dataclass(frozen=True)
class LoadedConfig:
    """A valid config with where it came from. ``folder`` is where relative paths and the user's
    modules lie.
    """

    config: CampaignConfig
    folder: Path
    source: Path
    lines: Any = None
    recorded: Recorded | None = None

    def spec(self, group: str, component: Component) -> PluginSpec:
        elements = tuple(self.config.space.elements)
        python = (
            words_of(component.python, self.folder) if isinstance(component, OracleConfig) else ()
        )
        folder = str(self.folder)
        return PluginSpec(
            group=group,
            use=component.use,
            params=component.params,
            module_folder=folder,
            elements=elements,
            python=python,
        )

    def oracle_spec(self, oracle: OracleConfig) -> OracleSpec:
        return OracleSpec(
            name=oracle.label,
            plugin=self.spec("oracles", oracle),
            workers=oracle.worker_bounds[1],
            cpus=oracle.cpus,
            gpus=oracle.gpus,
            memory=oracle.memory,
            wall_limit=self._wall_limit(oracle),
            start_limit=oracle.start_limit,
            sanity=oracle.sanity,
            fidelity=self.fidelity_keys[oracle.label],
            code=of_oreloop(with_engines=not oracle.python),
            seed=self.config.seed,
        )

    def _wall_limit(self, oracle: OracleConfig) -> float:
        """In seconds."""
        if oracle.wall_limit is not None:
            return oracle.wall_limit
        return math.inf if oracle.label in self.waiting_for_people else _WALL_LIMIT

    @property
    def waiting_for_people(self) -> frozenset[str]:
        """Oracles whose answers people give."""
        oracles = self.parts.oracles.items()
        return frozenset(
            name
            for name, oracle in oracles
            if isinstance(oracle, WaitsForPeople) and oracle.waits_for_people
        )

    @property
    def has_user_modules(self) -> bool:
        """Whether a component is made of classes of the user's own, whose modules must reach the
        workers.
        """
        return bool(self.user_components())

    def user_components(self) -> list[PluginSpec]:
        """The components that are classes of the user's own, or whose settings name some beside the
        config.
        """
        specs = [self.spec(group, component) for group, _, component in self._components()]
        return [spec for spec in specs if ":" in spec.use or modules(spec)]

    @property
    def code(self) -> dict[str, str]:
        """Hashes of the user's own modules, and of those beside them that they import, by
        component.
        """
        keys = {
            f"{group}.{label}": code_key(self.spec(group, component))
            for group, label, component in self._components()
        }
        return {name: key for name, key in keys.items() if key}

    def _components(self) -> Iterator[tuple[str, str, Component]]:
        """All components with their group and name."""
        config = self.config
        yield from (("generators", item.label, item) for item in config.generators)
        yield from (("oracles", item.label, item) for item in config.oracles)
        yield from (("screens", item.use, item) for item in config.screens.extra)
        for group, one in (
            ("surrogates", config.surrogate),
            ("classifiers", config.feasibility),
            ("committees", config.committee),
        ):
            if one is not None:
                yield group, one.use, one

    @property
    def measured(self) -> Mapping[str, tuple[Quantity, ...]]:
        """What each oracle measures: as recorded, so that a view needs no module or potential of
        the user's, or by the parts.
        """
        return self.recorded.measured if self.recorded is not None else self.parts.measured

    @property
    def fidelity_keys(self) -> Mapping[str, str]:
        """By oracle."""
        return self.recorded.fidelities if self.recorded is not None else self.parts.fidelity_keys

    def quantities(self) -> dict[str, Quantity]:
        """What the oracles measure and what follows from it, by name."""
        return with_derived(self.measured)

    @cached_property
    def parts(self) -> Parts:
        return _parts(self)

    def resolved(self) -> dict[str, Any]:
        """The config with all defaults, as it enters the ledger."""
        return self.config.model_dump(mode="json")

    def where(self, location: Location) -> str:
        line = _line(self.lines, location)
        return f"{self.source}, line {line}" if line else str(self.source)


@dataclass(frozen=True)
class Parts:
    """Every component, built without computing anything."""

    generators: Mapping[str, Generator]
    screens: tuple[Screen, ...]
    surrogate: Surrogate | None
    oracles: Mapping[str, Oracle]
    fidelities: Mapping[str, Fidelity]
    committee: Committee | None = None

    @property
    def measured(self) -> dict[str, tuple[Quantity, ...]]:
        return {name: tuple(oracle.quantities) for name, oracle in self.oracles.items()}

    @property
    def fidelity_keys(self) -> dict[str, str]:
        return {name: fidelity.key for name, fidelity in self.fidelities.items()}

    @property
    def versions_elsewhere(self) -> dict[str, str]:
        """By oracle and package, as ``sevennet/torch``: what is installed in the interpreters that
        oracles have of their own.
        """
        elsewhere = {
            name: oracle.versions
            for name, oracle in self.oracles.items()
            if isinstance(oracle, OracleElsewhere)
        }
        return {
            f"{name}/{package}": version
            for name, found in elsewhere.items()
            for package, version in sorted(found.items())
        }

    def quantities(self) -> dict[str, Quantity]:
        """What the oracles measure and what follows from it, by name."""
        return with_derived(self.measured)


@dataclass(frozen=True)
class Recorded:
    """What a campaign noted of its parts when it was last run, by oracle."""

    measured: Mapping[str, tuple[Quantity, ...]]
    fidelities: Mapping[str, str]

    @classmethod
    def of(cls, parts: Parts) -> Recorded:
        return cls(parts.measured, parts.fidelity_keys)

    def document(self) -> dict[str, Any]:
        """As JSON; read back by ``read``."""
        measured = {
            name: [[q.name, q.unit, list(q.shape)] for q in quantities]
            for name, quantities in self.measured.items()
        }
        return {"measured": measured, "fidelities": dict(self.fidelities)}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Recorded:
        measured = {
            name: tuple(
                Quantity(quantity, unit, tuple(shape)) for quantity, unit, shape in quantities
            )
            for name, quantities in document["measured"].items()
        }
        return cls(measured, document["fidelities"])


def with_derived(measured: Mapping[str, tuple[Quantity, ...]]) -> dict[str, Quantity]:
    """Quantities by name, with those that follow from them."""
    found = {quantity.name: quantity for quantities in measured.values() for quantity in quantities}
    return found | (
        {quantity.name: quantity for quantity in DERIVED} if ENERGY_PER_ATOM.name in found else {}
    )


def read(path: Path) -> LoadedConfig:
    """Read and check a YAML file. Raises InputError with file, line and the nearest right key."""
    document = yaml_of(text_of(path, "config"), path, typ="rt")
    if not isinstance(document, CommentedMap):
        raise InputError(
            f"{path} should hold a mapping of settings",
            hint="`oreloop init` writes a commented one",
        )
    return validate(_plain(document), folder=path.resolve().parent, source=path, lines=document)


def validate(
    document: Mapping[str, Any], *, folder: Path, source: Path, lines: Any = None
) -> LoadedConfig:
    """Check a mapping against the schema, and its settings against each other. Raises InputError
    with all problems that there are.
    """
    gathered: list[Problem] = []
    try:
        with as_recorded() if lines is None else nullcontext():
            config = CampaignConfig.model_validate(document, context={"problems": gathered})
    except ValidationError as error:
        found = mistakes(error, CampaignConfig, document)
        messages = [_describe(mistake, source, lines) for mistake in found]
        messages += _further_problems(
            document, [mistake.location for mistake in found], folder, source, lines
        )
        raise InputError(
            "\n".join(messages), hint="`oreloop schema` prints all keys with their units"
        ) from error
    loaded = LoadedConfig(config, folder, source, lines)
    if gathered:
        raise _as_one(loaded, gathered)
    return loaded


def _further_problems(
    document: Mapping[str, Any], wrong: Sequence[Location], folder: Path, source: Path, lines: Any
) -> list[str]:
    """What else is wrong with a config whose fields at some places are: told of the rest, as far as
    it stands without them.
    """
    gathered: list[Problem] = []
    try:
        config = CampaignConfig.model_validate(
            _without(document, wrong), context={"problems": gathered}
        )
    except ValidationError:
        return []
    loaded = LoadedConfig(config, folder, source, lines)
    touched = {location[0] for location in wrong if location}
    gathered += _build_parts(loaded)[1]
    apart = [item for item in gathered if not touched & {*item.location[:1], *item.also}]
    return [_told(loaded, item) for item in apart]


def _without(document: Mapping[str, Any], wrong: Sequence[Location]) -> dict[str, Any]:
    """A copy without what stands at some locations, which may go on below what the document
    holds.
    """
    found = copy.deepcopy(dict(document))
    for location in sorted(
        set(wrong), key=lambda item: [str(part).rjust(6, "0") for part in item], reverse=True
    ):
        here: Any = found
        path: list[tuple[Any, Any]] = []
        for part in location:
            is_there = (isinstance(here, dict) and part in here) or (
                isinstance(here, list) and isinstance(part, int) and part < len(here)
            )
            if not is_there:
                break
            path.append((here, part))
            here = here[part]
        if path:
            del path[-1][0][path[-1][1]]
    return found


def _told(loaded: LoadedConfig, problem: Problem) -> str:
    """Place, message and hint in one line."""
    return f"{loaded.where(problem.location)}: {problem.message}" + (
        f"; {problem.hint}" if problem.hint else ""
    )


def _as_one(loaded: LoadedConfig, found: Sequence[Problem]) -> InputError:
    """One error of all problems, one a line. A hint stands by itself where there is but one."""
    if len(found) == 1:
        return InputError(
            f"{loaded.where(found[0].location)}: {found[0].message}", hint=found[0].hint
        )
    return InputError(
        "\n".join(_told(loaded, problem) for problem in found),
        hint=f"correct these {len(found)} places",
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _line(node: Any, location: Location) -> int | None:
    """The line, from 1, of the last part of a location that the document holds."""
    line = None
    for part in location:
        if isinstance(node, CommentedMap) and part in node:
            line, node = node.lc.key(part)[0] + 1, node[part]
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line, node = node.lc.item(part)[0] + 1, node[part]
        elif not isinstance(node, CommentedMap | CommentedSeq):
            break
    return line


def _describe(mistake: Mistake, source: Path, lines: Any) -> str:
    line = _line(lines, mistake.location)
    return f"{source}{f', line {line}' if line else ''}: {mistake}"


def _parts(loaded: LoadedConfig) -> Parts:
    """Raises InputError with all problems that there are."""
    parts, found = _build_parts(loaded)
    if found or parts is None:
        raise _as_one(loaded, found)
    return parts


def _build_parts(loaded: LoadedConfig) -> tuple[Parts | None, list[Problem]]:
    """The parts, None where one cannot be built, and what is wrong with them."""
    config = loaded.config
    found: list[Problem] = []

    def build(group: str, component: Component, *location: str | int) -> Any:
        try:
            spec = loaded.spec(group, component)
            reason = plugins.unavailable(spec)
            if reason:
                raise InputError(reason)
            built = plugins.build(spec)
            if isinstance(built, HasTrial):
                describe(replace(spec, python=(sys.executable,)))
            return built
        except plugins.ParameterError as error:
            found.extend(_of_parameters(error, location))
        except InterpreterError as error:
            found.append(Problem((*location, "python"), error.message, error.hint))
        except InputError as error:
            found.append(Problem((*location, "use"), error.message, error.hint))
        return None

    generators = {
        g.label: build("generators", g, "generators", i) for i, g in enumerate(config.generators)
    }
    screens = tuple(
        build("screens", s, "screens", "extra", i) for i, s in enumerate(config.screens.extra)
    )
    surrogate = build("surrogates", config.surrogate, "surrogate") if config.surrogate else None
    if config.feasibility is not None:
        build("classifiers", config.feasibility, "feasibility")
    oracles = {o.label: build("oracles", o, "oracles", i) for i, o in enumerate(config.oracles)}
    committee = build("committees", config.committee, "committee") if config.committee else None
    known: dict[str, Oracle] = {}
    for i, oracle_config in enumerate(config.oracles):
        oracle = oracles[oracle_config.label]
        if oracle is not None and not isinstance(oracle, Oracle):
            found.append(
                Problem(
                    ("oracles", i),
                    f"{oracle_config.use} is no oracle: it needs `quantities` and "
                    "`evaluate(crystal)`",
                )
            )
        elif oracle is not None:
            known[oracle_config.label] = oracle
            found += _of_oracle(config, i, oracle)
    is_unfit = not isinstance(surrogate, MultiFidelity) and (
        surrogate is not None or config.surrogate is None
    )
    if config.fidelities is not None and config.fidelities.mode == "acquisition" and is_unfit:
        message = "mode acquisition asks a surrogate that models several levels at once"
        found.append(
            Problem(
                ("fidelities", "mode"),
                message,
                "take such a surrogate, or mode: gates",
                also=("surrogate",),
            )
        )
    if len(known) < len(config.oracles):
        return None, found
    fidelities = {
        o.label: plugins.fidelity_of(known[o.label], loaded.spec("oracles", o))
        for o in config.oracles
    }
    parts = Parts(generators, screens, surrogate, known, fidelities, committee)
    found += [
        *_of_committee(config, known),
        *_of_levels(config, known),
        *_of_gates(config, known),
        *_of_quantities(config, parts),
    ]
    found += problems_of_references(config, parts.measured, loaded.folder)
    return (None if found else parts), found


def _of_parameters(error: plugins.ParameterError, location: Location) -> Iterator[Problem]:
    for where, what in error.problems:
        place = (*location, "params", *where)
        yield Problem(
            place,
            f"{'.'.join(str(part) for part in place)}: {what}",
            error.hint if len(error.problems) == 1 else "",
        )


def _of_oracle(config: CampaignConfig, i: int, oracle: Oracle) -> Iterator[Problem]:
    oracle_config = config.oracles[i]
    if isinstance(oracle, HasElements) and set(config.space.elements) - oracle.elements:
        lacking = ", ".join(sorted(set(config.space.elements) - oracle.elements))
        hint = (
            f"it knows {', '.join(sorted(oracle.elements))}; change space.elements or take "
            "another potential"
        )
        yield Problem(
            ("oracles", i),
            f"oracle {oracle_config.label} has no parameters for {lacking}",
            hint,
            also=("space",),
        )
    queue = oracle_config.jobs or oracle_config.pilots
    if queue is not None and (reason := queue.lacking):
        hint = (
            "run the campaign where jobs are submitted, such as a login node, or set "
            "run_on: executor"
        )
        yield Problem(
            ("oracles", i, "run_on"),
            f"oracle {oracle_config.label} runs on a queue, but {reason}",
            hint,
        )
    if oracle_config.pilots is not None and oracle_config.pilots.time is not None:
        limit = oracle_config.wall_limit or _WALL_LIMIT
        least = limit + oracle_config.start_limit + 2 * oracle_config.pilots.check_every
        if oracle_config.pilots.time < least:
            yield Problem(
                ("oracles", i, "queue", "time"),
                f"a job of {oracle_config.pilots.time:g} s is over before its first label may be, "
                f"which takes up to {least:g} s with the start of a worker",
                "raise queue.time, or lower wall_limit or start_limit",
            )
    if oracle_config.batch > 1 and not isinstance(oracle, EvaluatesMany):
        message = (
            f"oracle {oracle_config.label} takes one crystal at a time, batch asks for "
            f"{oracle_config.batch}"
        )
        yield Problem(
            ("oracles", i, "batch"),
            message,
            "leave batch out and raise workers, or give the oracle `evaluate_many`",
        )
    measured = [quantity.name for quantity in oracle.quantities]
    for quantity in oracle_config.sanity:
        if quantity not in measured:
            message = f"sanity names {quantity!r}, but the oracle measures {', '.join(measured)}"
            yield Problem(("oracles", i, "sanity", quantity), message)


def _of_committee(config: CampaignConfig, oracles: Mapping[str, Oracle]) -> Iterator[Problem]:
    for i, oracle_config in enumerate(config.oracles):
        if asks_committee(oracles[oracle_config.label]) and (
            config.committee is None or config.fidelities is None
        ):
            lacking = (
                "no committee" if config.committee is None else "no level below it to learn from"
            )
            hint = (
                "add committee, such as use: mace_committee, and fidelities with another "
                "oracle as the first level"
            )
            message = f"{oracle_config.label} asks the campaign's committee, but there is {lacking}"
            yield Problem(("oracles", i), message, hint, also=("committee", "fidelities"))


def _of_levels(config: CampaignConfig, oracles: Mapping[str, Oracle]) -> Iterator[Problem]:
    levels = config.fidelities.levels if config.fidelities else ()
    for i, level in enumerate(levels):
        place: Location = ("fidelities", "levels", i)
        if level.oracle not in oracles:
            continue
        if i == 0 and asks_committee(oracles[level.oracle]):
            message = (
                f"{level.oracle} asks the campaign's committee, which learns from the first level"
            )
            yield Problem(
                place, message, "put an oracle that needs no training below it", also=("oracles",)
            )
        if level.start == "relaxed" and PROPOSED_ENERGY.name in {
            q.name for q in oracles[level.oracle].quantities
        }:
            message = (
                f"{level.oracle} measures the crystal as proposed, but would get the one "
                "that a level below relaxed"
            )
            yield Problem(
                (*place, "start"),
                message,
                "leave proposed out of its measure, or set start: proposed",
                also=("oracles",),
            )
        below = levels[i - 1].oracle
        if level.gate is not None and below in oracles:
            wanted, measured = (
                level.gate.quantity or config.objective.quantity,
                {q.name for q in oracles[below].quantities},
            )
            if wanted not in measured and not (
                wanted in {quantity.name for quantity in DERIVED}
                and ENERGY_PER_ATOM.name in measured
            ):
                message, hint = (
                    f"{below}, the level below, does not measure {wanted}",
                    f"it measures {', '.join(sorted(measured))}",
                )
                yield Problem((*place, "gate"), message, hint, also=("oracles", "objective"))


def _of_gates(config: CampaignConfig, oracles: Mapping[str, Oracle]) -> Iterator[Problem]:
    """The bounds of gates name what the level below measures."""
    levels = config.fidelities.levels if config.fidelities else ()
    for i, (lower, level) in enumerate(itertools.pairwise(levels), start=1):
        for k, item in enumerate(level.gate.constraints if level.gate is not None else ()):
            measured = (
                with_derived({lower.oracle: oracles[lower.oracle].quantities})
                if lower.oracle in oracles
                else {}
            )
            if measured and item.quantity not in measured:
                message = f"{lower.oracle}, the level below, does not measure {item.quantity}"
                place: Location = ("fidelities", "levels", i, "gate", "constraints", k, "quantity")
                yield Problem(
                    place, message, f"it measures {', '.join(sorted(measured))}", also=("oracles",)
                )


def _of_quantities(config: CampaignConfig, parts: Parts) -> Iterator[Problem]:
    places: list[tuple[str, Location]] = [(config.objective.quantity, ("objective", "quantity"))]
    places += [
        (item.quantity, ("further_objectives", i, "quantity"))
        for i, item in enumerate(config.further_objectives)
    ]
    places += [
        (item.quantity, ("constraints", i, "quantity")) for i, item in enumerate(config.constraints)
    ]
    measured = parts.quantities()
    for quantity, location in places:
        if quantity not in measured and quantity not in abundance.KNOWN:
            hint = f"the oracles measure {', '.join(sorted(measured))}"
            yield Problem(location, f"no oracle measures {quantity!r}", hint, also=("oracles",))


_FREE = frozenset(
    {
        "budget",
        "stopping",
        "executor",
        "tracking",
        "notifications",
        "failure_policy",
        "ledger",
        "known",
    }
)
_FREE_OF_ORACLE = frozenset(
    {
        "workers",
        "batch",
        "run_on",
        "queue",
        "cpus",
        "gpus",
        "memory",
        "wall_limit",
        "start_limit",
        "python",
        "cost",
    }
)
_REFUSED = frozenset({"name", "seed", "objective", "further_objectives"})


@dataclass(frozen=True)
class Change:
    """A dotted key that differs between two configs, and whether it may: freely, on acceptance, or
    not at all.
    """

    key: str
    kind: str


def changes(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    old_fidelities: Mapping[str, str],
    new_fidelities: Mapping[str, str],
) -> list[Change]:
    """What differs in meaning between two resolved configs, the schema's defaults filled in on both
    sides.
    """
    found = []
    for key in sorted(old.keys() | new.keys()):
        if content_hash(old.get(key)) == content_hash(new.get(key)) or key == "oracles":
            continue
        kind = "free" if key in _FREE else "refused" if key in _REFUSED else "accept"
        found.append(Change(key, kind))
    before = {_oracle_label(oracle): oracle for oracle in old["oracles"]}
    after = {_oracle_label(oracle): oracle for oracle in new["oracles"]}
    for label in sorted(before.keys() | after.keys()):
        if label not in before or label not in after:
            found.append(Change(f"oracles.{label}", "accept"))
            continue
        if old_fidelities[label] != new_fidelities[label]:
            found.append(
                Change(
                    f"oracles.{label} ({old_fidelities[label]} became {new_fidelities[label]})",
                    "refused",
                )
            )
            continue
        for key in sorted(before[label].keys() | after[label].keys()):
            if content_hash(before[label].get(key)) != content_hash(after[label].get(key)):
                found.append(
                    Change(f"oracles.{label}.{key}", "free" if key in _FREE_OF_ORACLE else "accept")
                )
    return found


def _oracle_label(oracle: Mapping[str, Any]) -> str:
    return str(oracle.get("name") or str(oracle["use"]).rpartition(":")[2])


def code_changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    """The user's own modules that read otherwise than when they were recorded; only the user knows
    whether labels still mean the same.
    """
    return [
        Change(f"the code of {name}", "accept")
        for name in sorted(old.keys() & new.keys())
        if old[name] != new[name]
    ]


def check_changes(found: list[Change], *, accepted: bool) -> None:
    """Raises InputError where a change is refused, or needs ``--accept-changes`` and has it not."""
    refused = [change.key for change in found if change.kind == "refused"]
    if refused:
        raise InputError(
            "these settings change what this campaign's labels or decisions mean and cannot "
            f"change in it: {', '.join(refused)}",
            hint="start a new campaign under another name; it can take this one's labels with "
            "initial_data",
        )
    unsure = [change.key for change in found if change.kind == "accept"]
    if unsure and not accepted:
        raise InputError(
            f"the config differs from the campaign's in: {', '.join(unsure)}",
            hint="run again with --accept-changes to use the new settings from the next round on",
        )
