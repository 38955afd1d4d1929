"""What no single field of a config can tell: settings that contradict each other, each with its
place, so that all are reported at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from campaign.types import ENERGY_ABOVE_HULL

if TYPE_CHECKING:
    from campaign.config.schema import CampaignConfig

Location = tuple[str | int, ...]

ASKS_NO_SURROGATE = ("random", "all", "query_by_committee")
ONE_OBJECTIVE = ("max_value_entropy", "knowledge_gradient", "straddle", "uncertainty", "hull")


@dataclass(frozen=True)
class Problem:
    """What is wrong where: what was expected, what was found. ``also`` are other top-level keys
    that it comes from.
    """

    location: Location
    message: str
    hint: str = ""
    also: tuple[str, ...] = ()


Check = Callable[["CampaignConfig"], Iterator[Problem]]


def _doubled(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def elements_of_the_space(config: CampaignConfig) -> Iterator[Problem]:
    for element in _doubled(config.space.elements):
        yield Problem(("space", "elements"), f"{element} is named twice")
    for key, value in (
        ("min_fraction", config.space.min_fraction),
        ("max_fraction", config.space.max_fraction),
    ):
        for element in (
            sorted(set(value) - set(config.space.elements)) if isinstance(value, dict) else ()
        ):
            yield _foreign(("space", key, element), element, config)
    for i, group in enumerate(config.space.together):
        for element in sorted(set(group.elements) - set(config.space.elements)):
            yield _foreign(("space", "together", i, "elements"), element, config)
        for element in _doubled(group.elements):
            yield Problem(("space", "together", i, "elements"), f"{element} is named twice")
    for key in ("structures", "chemical_potentials") if config.references else ():
        for element in sorted(set(getattr(config.references, key)) - set(config.space.elements)):
            yield _foreign(("references", key, element), element, config)
    for i, expected in enumerate(config.sentinels.expected if config.sentinels else ()):
        if expected.element not in config.space.elements:
            yield _foreign(("sentinels", "expected", i, "element"), expected.element, config)


def _foreign(location: Location, element: str, config: CampaignConfig) -> Problem:
    return Problem(
        location,
        f"expected one of the space's elements {', '.join(config.space.elements)}, found {element}",
        also=("space",),
    )


def fractions_leave_a_composition(config: CampaignConfig) -> Iterator[Problem]:
    space = config.space.space
    reversed_ = [
        element
        for element in dict.fromkeys(space.elements)
        if space.bounds(element)[0] > space.bounds(element)[1]
    ]
    for element in reversed_:
        low, high = space.bounds(element)
        yield Problem(
            ("space",),
            f"no composition fits: min_fraction of {element}, {low:g}, is larger than its "
            f"max_fraction, {high:g}",
        )
    for i, group in enumerate(config.space.together):
        if group.min_fraction > group.max_fraction:
            told = f"{group.min_fraction:g} and {group.max_fraction:g}"
            yield Problem(
                ("space", "together", i),
                f"no composition fits: expected min_fraction at most max_fraction, found {told}",
            )
    low, high = (
        sum(space.bounds(element)[end] for element in set(space.elements)) for end in (0, 1)
    )
    if not reversed_ and (low > 1 + 1e-9 or high < 1 - 1e-9):
        yield Problem(
            ("space",),
            f"no composition fits: the least fractions add up to {low:g}, the largest to {high:g}",
        )


def bounds_leave_a_value(config: CampaignConfig) -> Iterator[Problem]:
    at_least = {
        item.quantity: item.at_least for item in config.constraints if item.at_least is not None
    }
    for i, item in enumerate(config.constraints):
        low = at_least.get(item.quantity)
        if item.at_most is not None and low is not None and low > item.at_most:
            yield Problem(
                ("constraints", i),
                f"no {item.quantity} is at least {low:g} and at most {item.at_most:g}",
            )
    if (
        config.objective.direction == "match"
        and config.objective.target is not None
        and config.objective.target < 0
    ):
        yield Problem(
            ("objective", "target"),
            f"match: expected a distance, 0 or more, found {config.objective.target:g}",
        )
    if config.acquisition.trust_min > config.acquisition.trust_max:
        told = f"{config.acquisition.trust_min:g} and {config.acquisition.trust_max:g}"
        yield Problem(
            ("acquisition", "trust_min"),
            f"expected trust_min at most trust_max, found {told}",
        )


def rules_fit_the_space(config: CampaignConfig) -> Iterator[Problem]:
    space = config.space
    for key in ("oxidation_states", "ratios"):
        for element in sorted(set(getattr(space, key)) - set(space.elements)):
            yield _foreign(("space", key, element), element, config)
    for key in ("oxidation_states", "electronegativity_order"):
        if getattr(space, key) and not space.charge_neutral:
            yield Problem(("space", key), f"{key} belongs to charge_neutral: true")
    for element, states in space.oxidation_states.items():
        if not states or 0 in states:
            yield Problem(
                ("space", "oxidation_states", element),
                f"expected charges other than 0, found {list(states)}",
                "write {Fe: [2, 3]}",
            )
    if len(space.ratios) == 1:
        yield Problem(
            ("space", "ratios"), "a ratio is of two elements or more", "write {Li: 1, O: 2}"
        )


def quantities_of_the_composition(config: CampaignConfig) -> Iterator[Problem]:
    from campaign.crystals import abundance

    if config.objective.quantity in abundance.KNOWN:
        message = (
            f"{config.objective.quantity} needs no label, so that it cannot be what the "
            "campaign labels for"
        )
        yield Problem(
            ("objective", "quantity"), message, "name it under further_objectives or constraints"
        )
    places: list[tuple[Location, str]] = [
        (("further_objectives", i, "quantity"), item.quantity)
        for i, item in enumerate(config.further_objectives)
    ]
    places += [
        (("constraints", i, "quantity"), item.quantity) for i, item in enumerate(config.constraints)
    ]
    for location, quantity in places:
        if quantity in abundance.KNOWN:
            lacking = [
                element
                for element in config.space.elements
                if element not in abundance.of_elements(quantity)
            ]
            if lacking:
                yield Problem(
                    location,
                    f"no {quantity} of {', '.join(lacking)} is known",
                    "leave the element or the quantity out",
                    also=("space",),
                )


def numbers_in_params(config: CampaignConfig) -> Iterator[Problem]:
    several = {"generators": config.generators, "oracles": config.oracles}
    components: list[tuple[Location, Any]] = [
        ((group, i), item) for group, items in several.items() for i, item in enumerate(items)
    ]
    components += [(("screens", "extra", i), item) for i, item in enumerate(config.screens.extra)]
    components += [
        ((name,), getattr(config, name)) for name in ("surrogate", "feasibility", "committee")
    ]
    for location, component in components:
        for place in _not_a_number(component.params) if component is not None else ():
            yield Problem((*location, "params", *place), "expected a number, found nan")


def _not_a_number(value: Any) -> Iterator[Location]:
    if isinstance(value, float) and math.isnan(value):
        yield ()
    inside = (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    for key, item in inside:
        yield from ((key, *rest) for rest in _not_a_number(item))


def names(config: CampaignConfig) -> Iterator[Problem]:
    for kind, labels in (
        ("generators", [g.label for g in config.generators]),
        ("oracles", [o.label for o in config.oracles]),
    ):
        for label in _doubled(labels):
            place = len(labels) - 1 - labels[::-1].index(label)
            yield Problem(
                (kind, place), f"{kind}: two are called {label!r}", "give each a name of its own"
            )


def something_proposes(config: CampaignConfig) -> Iterator[Problem]:
    if not config.generators and not config.candidate_pools:
        yield Problem(
            (),
            "nothing proposes candidates: add generators or candidate_pools",
            also=("generators", "candidate_pools"),
        )


def acquisition_has_what_it_asks(config: CampaignConfig) -> Iterator[Problem]:
    use, n = config.acquisition.use, len(config.objectives)
    place: Location = ("acquisition", "use")
    several = ("further_objectives", "objective", "constraints")
    if use == "query_by_committee" and config.committee is None:
        message = (
            "acquisition query_by_committee asks a committee: add committee, such as "
            "use: mace_committee"
        )
        yield Problem(place, message, also=("committee",))
    if config.surrogate is None and use not in ASKS_NO_SURROGATE:
        yield Problem(
            place,
            f"acquisition {use} asks a model: add surrogate, or use random or all",
            also=("surrogate",),
        )
    if use == "log_expected_hypervolume_improvement" and n < 2:
        yield Problem(
            place,
            f"acquisition {use} weighs several objectives: add further_objectives",
            also=several,
        )
    if use in ONE_OBJECTIVE and (n > 1 or config.modelled_constraints):
        yield Problem(
            place, f"acquisition {use} takes one objective and no constraints", also=several
        )
    if (use == "straddle") > (config.objective.direction == "match"):
        message = (
            "acquisition straddle looks for a level: objective.direction: match, with "
            "value: the level"
        )
        yield Problem(place, message, also=several)
    if use in ("max_value_entropy", "knowledge_gradient") and config.objective.direction == "match":
        message = (
            f"acquisition {use} maximizes or minimizes; to match a value take "
            "log_expected_improvement"
        )
        yield Problem(place, message, also=several)
    if config.acquisition.weights and len(config.acquisition.weights) != n:
        message = (
            f"acquisition.weights: {n} objectives, but {len(config.acquisition.weights)} weights"
        )
        yield Problem(("acquisition", "weights"), message, also=several)


def stability_is_less(config: CampaignConfig) -> Iterator[Problem]:
    """Energies above the hull follow from labels, are better the lower, and are what the choice by
    the hull is for.
    """
    places: list[Location] = [
        ("objective",),
        *(("further_objectives", i) for i in range(len(config.further_objectives))),
    ]
    for place, item in zip(places, (config.objective, *config.further_objectives), strict=True):
        if item.quantity == ENERGY_ABOVE_HULL.name and item.direction != "minimize":
            yield Problem(
                (*place, "direction"),
                f"expected minimize for {item.quantity}, found {item.direction}",
            )
    if config.acquisition.use == "hull" and config.objective.quantity != ENERGY_ABOVE_HULL.name:
        message = (
            "acquisition hull looks for stability: expected objective "
            f"{ENERGY_ABOVE_HULL.name}, found {config.objective.quantity}"
        )
        yield Problem(("acquisition", "use"), message, also=("objective",))
    for purpose, found in (
        ("initial_data", config.initial_data),
        ("candidate_pools", config.candidate_pools),
    ):
        for i, source in enumerate(found):
            if ENERGY_ABOVE_HULL.name in source.columns:
                message = (
                    f"{purpose} {source.path}: {ENERGY_ABOVE_HULL.name} follows from the "
                    "labels of one level, and is never one"
                )
                yield Problem((purpose, i, "columns"), message, "give energy_per_atom")


def objectives_differ(config: CampaignConfig) -> Iterator[Problem]:
    for quantity in _doubled([item.quantity for item in config.objectives]):
        yield Problem(
            ("further_objectives",),
            f"objective and further_objectives name a quantity twice: {quantity}",
            also=("objective",),
        )


def shares_fit(config: CampaignConfig) -> Iterator[Problem]:
    if (
        config.generator_shares is not None
        and config.generator_shares.floor * len(config.generators) > 1
    ):
        message = (
            f"generator_shares.floor: {len(config.generators)} generators cannot each "
            f"keep {config.generator_shares.floor:g}"
        )
        yield Problem(("generator_shares", "floor"), message, also=("generators",))


def levels_are_oracles(config: CampaignConfig) -> Iterator[Problem]:
    known = {oracle.label for oracle in config.oracles}
    levels = [level.oracle for level in config.fidelities.levels] if config.fidelities else []
    left_out = sorted(known - set(levels)) if levels else []
    if left_out or len(set(levels)) != len(levels):
        message = (
            f"fidelities: each oracle is one level; {', '.join(left_out) or 'one'} is "
            f"{'none' if left_out else 'two'}"
        )
        yield Problem(("fidelities", "levels"), message, also=("oracles",))


def oracles_that_are_named_exist(config: CampaignConfig) -> Iterator[Problem]:
    known = {oracle.label for oracle in config.oracles}
    named: list[tuple[Location, str]] = [
        (("budget", "oracle_seconds", name), name) for name in config.budget.oracle_seconds
    ]
    levels = config.fidelities.levels if config.fidelities else ()
    named += [
        (("fidelities", "levels", i, "oracle"), level.oracle) for i, level in enumerate(levels)
    ]
    if config.fidelities is not None and config.fidelities.approval is not None:
        named.append((("fidelities", "approval", "before"), config.fidelities.approval.before))
    for key, part in (
        ("sentinels", config.sentinels),
        ("references", config.references),
        ("phases", config.phases),
    ):
        named += [
            ((key, "oracles", i), name) for i, name in enumerate((part and part.oracles) or ())
        ]
    for element, value in (
        config.references.chemical_potentials.items() if config.references else ()
    ):
        named += [
            (("references", "chemical_potentials", element, name), name)
            for name in (value if isinstance(value, dict) else ())
        ]
    for key, found in (
        ("initial_data", config.initial_data),
        ("candidate_pools", config.candidate_pools),
    ):
        named += [
            ((key, i, "oracle"), source.oracle) for i, source in enumerate(found) if source.oracle
        ]
    for location, name in named:
        if name not in known:
            yield Problem(
                location,
                f"there is no oracle {name!r} in this config, only {', '.join(sorted(known))}",
                also=("oracles",),
            )


def currencies_have_a_price(config: CampaignConfig) -> Iterator[Problem]:
    known = sorted({oracle.cost.currency for oracle in config.oracles if oracle.cost is not None})
    for currency in config.budget.cost:
        if currency not in known:
            message = (
                f"no oracle has a cost in {currency!r}, only in {', '.join(known) or 'nothing'}"
            )
            yield Problem(("budget", "cost", currency), message, also=("oracles",))


def imported_labels_have_an_oracle(config: CampaignConfig) -> Iterator[Problem]:
    for purpose, found in (
        ("initial_data", config.initial_data),
        ("candidate_pools", config.candidate_pools),
    ):
        for i, source in enumerate(found):
            if source.columns and source.oracle is None:
                yield Problem(
                    (purpose, i),
                    f"{purpose} {source.path}: say with oracle: whose labels these values are",
                )
            if any(
                (other.path, other.oracle) == (source.path, source.oracle) for other in found[:i]
            ):
                yield Problem(
                    (purpose, i),
                    f"{purpose} names {source.path} twice for one oracle; give all its columns "
                    "at once",
                )


def something_ends_it(config: CampaignConfig) -> Iterator[Problem]:
    budget = config.budget
    spending = (*budget.oracle_seconds.values(), *budget.cost.values())
    limits = (budget.rounds, budget.labels, budget.wall_time, config.objective.target, *spending)
    if all(limit is None for limit in limits) and config.stopping.stagnation_rounds is None:
        message = (
            "nothing ends this campaign: set a part of budget, objective.target or "
            "stopping.stagnation_rounds"
        )
        yield Problem(("budget",), message, also=("objective", "stopping"))


def queues_have_jobs(config: CampaignConfig) -> Iterator[Problem]:
    for i, oracle in enumerate(config.oracles):
        if oracle.queue is not None and oracle.run_on == "executor":
            yield Problem(
                ("oracles", i, "queue"),
                f"queue belongs to run_on: queue or pilots, found run_on: {oracle.run_on}",
            )
        for key in ("workers", "batch") if oracle.run_on == "queue" else ():
            if (found := getattr(oracle, key)) != 1:
                message = f"each label is a job of its own, found {key}: {_shown(found)}"
                yield Problem(
                    ("oracles", i, key),
                    message,
                    "leave it out; queue.max_jobs says how many labels are under way at once",
                )
        if oracle.run_on == "executor" and isinstance(oracle.workers, tuple):
            yield Problem(
                ("oracles", i, "workers"),
                "only workers of run_on: pilots come and go, found workers: "
                f"{_shown(oracle.workers)}",
                "give one number, or set run_on: pilots",
            )


def _shown(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def pilots_can_join(config: CampaignConfig) -> Iterator[Problem]:
    for i, oracle in enumerate(config.oracles):
        if (queue := oracle.pilots) is None:
            continue
        executor = config.executor
        if executor.use == "serial" or executor.address is not None:
            found = "use: serial" if executor.use == "serial" else f"address: {executor.address}"
            yield Problem(
                ("executor",),
                f"run_on: pilots needs a Ray that the campaign starts, found {found}",
                "set executor: {use: ray} without address",
                also=("oracles",),
            )
        if queue.nodes != 1:
            yield Problem(
                ("oracles", i, "queue", "nodes"),
                f"a pilot is a job on one node, found nodes: {queue.nodes}",
                "queue.workers says how many workers a job has, queue.max_jobs how many jobs "
                "there are",
            )
        if queue.time is None:
            yield Problem(
                ("oracles", i, "queue"),
                "run_on: pilots needs queue.time, how long a job with workers may run (s)",
                "give it the time of many labels",
            )


CHECKS: tuple[Check, ...] = (
    elements_of_the_space,
    fractions_leave_a_composition,
    rules_fit_the_space,
    quantities_of_the_composition,
    bounds_leave_a_value,
    numbers_in_params,
    names,
    something_proposes,
    acquisition_has_what_it_asks,
    stability_is_less,
    objectives_differ,
    shares_fit,
    levels_are_oracles,
    oracles_that_are_named_exist,
    currencies_have_a_price,
    imported_labels_have_an_oracle,
    something_ends_it,
    queues_have_jobs,
    pilots_can_join,
)


def problems(config: CampaignConfig) -> list[Problem]:
    """Of all checks."""
    return [problem for check in CHECKS for problem in check(config)]
