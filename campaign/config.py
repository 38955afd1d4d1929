"""Configs from YAML: read, checked against the schema and the plug-ins, compared on resume.

Every error names file, line, the wrong key and the nearest right one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from campaign import plugins
from campaign.errors import InputError
from campaign.passwords import without_password
from campaign.protocols import (
    Committee,
    Generator,
    HasElements,
    MultiFidelity,
    Oracle,
    OracleSpec,
    PluginSpec,
    Screen,
    Surrogate,
    asks_committee,
)
from campaign.schema import CampaignConfig, Component, OracleConfig
from campaign.seeds import content_hash
from campaign.types import ENERGY_PER_ATOM, FORMATION_ENERGY, PROPOSED_ENERGY, Fidelity, Quantity

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class LoadedConfig:
    """A valid config with where it came from. ``folder`` is where relative paths and the user's modules lie."""

    config: CampaignConfig
    folder: Path
    source: Path
    lines: Any = None

    def spec(self, group: str, component: Component) -> PluginSpec:
        return PluginSpec(group=group, use=component.use, params=component.params, module_folder=str(self.folder))

    def oracle_spec(self, oracle: OracleConfig) -> OracleSpec:
        return OracleSpec(
            name=oracle.label,
            plugin=self.spec("oracles", oracle),
            workers=oracle.workers,
            cpus=oracle.cpus,
            gpus=oracle.gpus,
            memory=oracle.memory,
            wall_limit=oracle.wall_limit,
            start_limit=oracle.start_limit,
            sanity=oracle.sanity,
            fidelity=self.parts.fidelities[oracle.label].key,
            seed=self.config.seed,
        )

    @property
    def has_user_modules(self) -> bool:
        """Whether a component is a class of the user's own, whose module must reach the workers."""
        config = self.config
        components = [*config.generators, *config.oracles, *config.screens.extra, config.surrogate, config.feasibility, config.committee]
        return any(component is not None and ":" in component.use for component in components)

    @cached_property
    def parts(self) -> Parts:
        return _build_parts(self)

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

    def quantities(self) -> dict[str, Quantity]:
        """What the oracles measure and what follows from it, by name."""
        found = {quantity.name: quantity for oracle in self.oracles.values() for quantity in oracle.quantities}
        return found | ({FORMATION_ENERGY.name: FORMATION_ENERGY} if ENERGY_PER_ATOM.name in found else {})


def read(path: Path) -> LoadedConfig:
    """Read and check a YAML file. Raises InputError with file, line and the nearest right key."""
    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror}", hint="`oreloop init` writes one to start from") from error
    try:
        document = YAML(typ="rt", pure=True).load(text)
    except YAMLError as error:
        raise InputError(f"{path} is no valid YAML: {without_password(str(error))}") from error
    if not isinstance(document, CommentedMap):
        raise InputError(f"{path} should hold a mapping of settings", hint="`oreloop init` writes a commented one")
    return validate(_plain(document), folder=path.resolve().parent, source=path, lines=document)


def validate(document: Mapping[str, Any], *, folder: Path, source: Path, lines: Any = None) -> LoadedConfig:
    """Check a mapping against the schema. Raises InputError."""
    try:
        config = CampaignConfig.model_validate(document)
    except ValidationError as error:
        messages = [_describe(item, source, lines) for item in error.errors()]
        raise InputError("\n".join(messages), hint="`oreloop schema` prints all keys with their units") from error
    return LoadedConfig(config, folder, source, lines)


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


def _fields_at(location: Location) -> list[str]:
    """The keys that the schema knows where a location ends."""
    model: Any = CampaignConfig
    for part in location:
        if isinstance(part, int) or not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        field = model.model_fields.get(str(part))
        if field is None:
            break
        inside = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((kind for kind in inside if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _describe(item: Any, source: Path, lines: Any) -> str:
    location: Location = tuple(item["loc"])
    line = _line(lines, location)
    place = f"{source}, line {line}" if line else str(source)
    dotted = ".".join(str(part) for part in location)
    if item["type"] == "extra_forbidden":
        names = _fields_at(location[:-1])
        nearest = difflib.get_close_matches(str(location[-1]), names, n=1)
        suggestion = f"; did you mean {nearest[0]!r}?" if nearest else f"; known keys are {', '.join(names)}"
        return f"{place}: unknown key {dotted!r}{suggestion}"
    if item["type"] == "missing":
        return f"{place}: {dotted} is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{place}: {dotted + ': ' if dotted else ''}{message}"


def _build_parts(loaded: LoadedConfig) -> Parts:
    config = loaded.config

    def build(group: str, component: Component, *location: str | int) -> Any:
        spec = loaded.spec(group, component)
        try:
            reason = plugins.unavailable(spec)
            if reason:
                raise InputError(reason)
            return plugins.build(spec)
        except plugins.ParameterError as error:
            messages = []
            for where, what in error.problems:
                nearest = difflib.get_close_matches(str(where[-1]), error.known, n=1) if where else []
                place = loaded.where((*location, "params", *where))
                key = ".".join(str(part) for part in (*location, "params", *where))
                if "Extra inputs" in what:
                    what = f"unknown key; did you mean {nearest[0]!r}?" if nearest else f"unknown key; known are {', '.join(error.known)}"
                messages.append(f"{place}: {key}: {what}")
            raise InputError("\n".join(messages), hint=error.hint) from error
        except InputError as error:
            raise type(error)(f"{loaded.where((*location, 'use'))}: {error.message}", hint=error.hint) from error

    generators = {g.label: build("generators", g, "generators", i) for i, g in enumerate(config.generators)}
    screens = tuple(build("screens", s, "screens", "extra", i) for i, s in enumerate(config.screens.extra))
    surrogate = build("surrogates", config.surrogate, "surrogate") if config.surrogate else None
    if config.feasibility is not None:
        build("classifiers", config.feasibility, "feasibility")
    oracles = {o.label: build("oracles", o, "oracles", i) for i, o in enumerate(config.oracles)}
    for i, oracle_config in enumerate(config.oracles):
        oracle = oracles[oracle_config.label]
        place = loaded.where(("oracles", i))
        if not isinstance(oracle, Oracle):
            raise InputError(f"{place}: {oracle_config.use} is no oracle: it needs `quantities` and `evaluate(crystal)`")
        if isinstance(oracle, HasElements) and set(config.space.elements) - oracle.elements:
            lacking = ", ".join(sorted(set(config.space.elements) - oracle.elements))
            raise InputError(
                f"{place}: oracle {oracle_config.label} has no parameters for {lacking}",
                hint=f"it knows {', '.join(sorted(oracle.elements))}; change space.elements or take another potential",
            )
        for quantity in oracle_config.sanity:
            if quantity not in {q.name for q in oracle.quantities}:
                raise InputError(
                    f"{place}: sanity names {quantity!r}, but the oracle measures {', '.join(q.name for q in oracle.quantities)}"
                )
    fidelities = {o.label: plugins.fidelity_of(oracles[o.label], loaded.spec("oracles", o)) for o in config.oracles}
    committee = build("committees", config.committee, "committee") if config.committee else None
    for i, oracle_config in enumerate(config.oracles):
        if asks_committee(oracles[oracle_config.label]) and (committee is None or config.fidelities is None):
            raise InputError(
                f"{loaded.where(('oracles', i))}: {oracle_config.label} asks the campaign's committee, but there is "
                f"{'no committee' if committee is None else 'no level below it to learn from'}",
                hint="add committee, such as use: mace_committee, and fidelities with another oracle as the first level",
            )
    parts = Parts(generators, screens, surrogate, oracles, fidelities, committee)
    if config.fidelities is not None and config.fidelities.mode == "acquisition" and not isinstance(surrogate, MultiFidelity):
        raise InputError(
            f"{loaded.where(('fidelities', 'mode'))}: mode acquisition asks a surrogate that models several levels at once",
            hint="take such a surrogate, or mode: gates",
        )
    for i, level in enumerate(config.fidelities.levels if config.fidelities else ()):
        if i == 0 and asks_committee(oracles[level.oracle]):
            raise InputError(
                f"{loaded.where(('fidelities', 'levels', 0))}: {level.oracle} asks the campaign's committee, which "
                "learns from the first level",
                hint="put an oracle that needs no training below it",
            )
        if level.start == "relaxed" and PROPOSED_ENERGY.name in {q.name for q in oracles[level.oracle].quantities}:
            raise InputError(
                f"{loaded.where(('fidelities', 'levels', i, 'start'))}: {level.oracle} measures the crystal as proposed, "
                "but would get the one that a level below relaxed",
                hint="leave proposed out of its measure, or set start: proposed",
            )
        if level.gate is not None:
            wanted = level.gate.quantity or config.objective.quantity
            below = config.fidelities.levels[i - 1].oracle if config.fidelities else ""
            measured = {q.name for q in oracles[below].quantities}
            if wanted not in measured and not (wanted == FORMATION_ENERGY.name and ENERGY_PER_ATOM.name in measured):
                raise InputError(
                    f"{loaded.where(('fidelities', 'levels', i, 'gate'))}: {below}, the level below, does not measure {wanted}",
                    hint=f"it measures {', '.join(sorted(measured))}",
                )
    places: list[tuple[str, Location]] = [(config.objective.quantity, ("objective", "quantity"))]
    places += [(item.quantity, ("further_objectives", i, "quantity")) for i, item in enumerate(config.further_objectives)]
    places += [(item.quantity, ("constraints", i, "quantity")) for i, item in enumerate(config.constraints)]
    for quantity, location in places:
        if quantity not in parts.quantities():
            raise InputError(
                f"{loaded.where(location)}: no oracle measures {quantity!r}",
                hint=f"the oracles measure {', '.join(sorted(parts.quantities()))}",
            )
    return parts


_FREE = frozenset({"budget", "stopping", "executor", "tracking", "failure_policy", "ledger"})
_FREE_OF_ORACLE = frozenset({"workers", "cpus", "gpus", "memory", "wall_limit", "start_limit"})
_REFUSED = frozenset({"name", "seed", "objective", "further_objectives"})


@dataclass(frozen=True)
class Change:
    """A dotted key that differs between two configs, and whether it may: freely, on acceptance, or not at all."""

    key: str
    kind: str


def changes(
    old: Mapping[str, Any], new: Mapping[str, Any], old_fidelities: Mapping[str, str], new_fidelities: Mapping[str, str]
) -> list[Change]:
    """What differs in meaning between two resolved configs, the schema's defaults filled in on both sides."""
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
            found.append(Change(f"oracles.{label} ({old_fidelities[label]} became {new_fidelities[label]})", "refused"))
            continue
        for key in sorted(before[label].keys() | after[label].keys()):
            if content_hash(before[label].get(key)) != content_hash(after[label].get(key)):
                found.append(Change(f"oracles.{label}.{key}", "free" if key in _FREE_OF_ORACLE else "accept"))
    return found


def _oracle_label(oracle: Mapping[str, Any]) -> str:
    return str(oracle.get("name") or str(oracle["use"]).rpartition(":")[2])


def check_changes(found: list[Change], *, accepted: bool) -> None:
    """Raises InputError where a change is refused, or needs ``--accept-changes`` and has it not."""
    refused = [change.key for change in found if change.kind == "refused"]
    if refused:
        raise InputError(
            f"these settings change what this campaign's labels or decisions mean and cannot change in it: {', '.join(refused)}",
            hint="start a new campaign under another name; it can take this one's labels with initial_data",
        )
    unsure = [change.key for change in found if change.kind == "accept"]
    if unsure and not accepted:
        raise InputError(
            f"the config differs from the campaign's in: {', '.join(unsure)}",
            hint="run again with --accept-changes to use the new settings from the next round on",
        )
