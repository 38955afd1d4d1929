"""The conformance kit for generators: ours and the users'. ``oreloop generator check`` runs it, and
``check_generator`` in pytest.

A generator that learns is trained on the labels that the kit brings, or on the caller's own where
it needs others, such as crystals with certain bonds; what it proposes is looked at with what it
learned.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from campaign.checkpoints import checkpoint_from_bytes, checkpoint_to_bytes
from campaign.crystals.matching import key_or_none
from campaign.errors import InputError
from campaign.protocols import (
    FittedSurrogate,
    GenerationContext,
    NeedsLabels,
    PluginSpec,
    Surrogate,
    Trainable,
)
from campaign.seeds import content_hash, library_seeds
from campaign.testing.bench import ELEMENTS, SEED, alloys, built, labelled_of, spec_of
from campaign.testing.findings import Check, Finding, Skipped, findings, passed, tell_nobody
from campaign.types import (
    ENERGY_PER_ATOM,
    Checkpoint,
    Crystal,
    LabelledCandidate,
    Objective,
    Proposal,
    SearchSpace,
)

_N_LABELLED, _N_ASKED, _N_MORE = 60, 4, 8
_MODEL = "gp"
Made = list[tuple[Crystal, Proposal]]


def examine_generator(
    spec: PluginSpec,
    *,
    labelled: Sequence[LabelledCandidate] = (),
    quantity: str = ENERGY_PER_ATOM.name,
    on_step: Callable[[str], None] = tell_nobody,
) -> Iterator[Finding]:
    """Run all checks on a generator, one finding after another. The search space is of the elements
    of ``spec``.

    ``labelled``: what it learns from in place of the kit's own alloys; ``quantity``: whose values
    are to be small.
    """
    yield from findings(_Checks(spec, labelled, quantity).all(), on_step)


class _Checks:
    def __init__(
        self, spec: PluginSpec, labelled: Sequence[LabelledCandidate], quantity: str
    ) -> None:
        self.elements = spec.elements or ELEMENTS
        self.spec = replace(spec, elements=self.elements)
        self.space = SearchSpace(self.elements)
        self.objective = Objective(quantity, "minimize")
        self.needs_model = False
        own = alloys(self.elements, _N_LABELLED)
        self.labelled = sorted(labelled, key=lambda item: item.candidate.id) or labelled_of(
            own, self.elements
        )

    def all(self) -> dict[str, Check]:
        checks: dict[str, Check] = {
            "proposes crystals": self.proposes,
            "same seed, same crystals": self.same_again,
            "no more than asked for": self.no_more,
            "inside the space": self.inside,
            "inside a narrower space": self.inside_narrower,
            "parents exist": self.parents,
            "no label": lambda: self.with_few(0),
            "one label": lambda: self.with_few(1),
            "with a model": self.with_model,
            "context unchanged": self.context_unchanged,
        }
        if not isinstance(built(self.spec), Trainable):
            return checks
        return checks | {
            "learns": self.learns,
            "same seed, same checkpoint": self.learns_again,
            "checkpoint as bytes": self.round_trip,
            "the gate": self.gate,
        }

    def context(self, **changes: Any) -> GenerationContext:
        """Copies each time, so that what one look changes is no other's."""
        labelled = [
            replace(item, values=dict(item.values))
            for item in changes.pop("labelled", self.labelled)
        ]
        space = SearchSpace(self.elements)
        known = GenerationContext(
            space=space, objective=self.objective, labelled=labelled, checkpoint=self.checkpoint
        )
        if self.needs_model and "surrogate" not in changes:
            changes["surrogate"] = self.model
        return replace(known, **changes)

    @cached_property
    def model(self) -> FittedSurrogate:
        """Of the labels, for generators that ask one."""
        known = [item for item in self.labelled if self.objective.quantity in item.values]
        values = np.array([item.values[self.objective.quantity] for item in known])
        with library_seeds(SEED):
            surrogate: Surrogate = built(
                PluginSpec(group="surrogates", use=_MODEL, elements=self.elements)
            )
            return surrogate.fit([item.candidate for item in known], values)

    @cached_property
    def checkpoint(self) -> Checkpoint | None:
        """What it learns from all labels; None where it does not learn, or not from these."""
        try:
            return self.trained(built(self.spec))
        except (InputError, Skipped):
            return None

    def trained(self, generator: Any, checkpoint: Checkpoint | None = None) -> Checkpoint:
        if not isinstance(generator, Trainable):
            raise Skipped("it does not learn")
        labelled = [replace(item, values=dict(item.values)) for item in self.labelled]
        context = GenerationContext(
            space=self.space, objective=self.objective, labelled=labelled, checkpoint=checkpoint
        )
        with library_seeds(SEED):
            return generator.train(labelled, rng=np.random.default_rng(SEED), context=context)

    def made(
        self, n: int = _N_ASKED, *, seed: int = SEED, generator: Any = None, **changes: Any
    ) -> Made:
        """At most a few more than ``n``, so that one without an end is seen as such."""
        maker = generator if generator is not None else built(self.spec)
        context = self.context(**changes)
        with library_seeds(seed):
            items = list(
                itertools.islice(
                    maker.generate(n, rng=np.random.default_rng(seed), context=context), n + _N_MORE
                )
            )
        for item in items:
            is_pair = (
                isinstance(item, tuple)
                and len(item) == 2
                and isinstance(item[0], Crystal)
                and isinstance(item[1], Proposal)
            )
            assert is_pair, (
                f"gave {type(item).__name__}, expected pairs of a Crystal and a Proposal"
            )
        return items

    @cached_property
    def reference(self) -> Made:
        """By a model's leave where it proposes nothing else."""
        made = self.made()
        self.needs_model = not made
        return made or self.made()

    def some(self) -> Made:
        if not self.reference:
            raise Skipped("it proposes nothing from these labels")
        return self.reference

    def with_model(self) -> str:
        """Before there is a model, and with one."""
        told = []
        for name, model in (("without", None), ("with", self.model)):
            made = self.made(surrogate=model)
            assert len(made) <= _N_ASKED, (
                f"{name} one, asked for {_N_ASKED}, it gave {len(made)} or more"
            )
            for crystal, _ in made:
                assert not (reason := self.space.violation(crystal.symbols)), (
                    f"{name} one, {crystal.formula} {reason}"
                )
            told.append(f"{len(made)} of {_N_ASKED} {name} one")
        return ", ".join(told)

    def proposes(self) -> str:
        made = self.some()
        for crystal, proposal in made:
            assert len(crystal), "a crystal without atoms"
            assert np.isfinite([crystal.volume, crystal.fractional.sum()]).all(), (
                f"{crystal.formula} is not finite"
            )
            try:
                content_hash(dict(proposal.condition))
            except (TypeError, ValueError) as error:
                raise AssertionError(
                    f"the condition {proposal.condition} is nothing that can be recorded: {error}"
                ) from error
        unlike = len({key_or_none(crystal) or crystal.id for crystal, _ in made})
        return (
            f"{len(made)} of {_N_ASKED}, {unlike} of them unlike: "
            f"{', '.join(sorted({crystal.formula for crystal, _ in made})[:4])}"
        )

    def same_again(self) -> str:
        """From a second instance, in a process that has drawn other numbers meanwhile."""
        first, second = self.some(), self.made()
        ids, others = [crystal.id for crystal, _ in first], [crystal.id for crystal, _ in second]
        assert ids == others, (
            f"{sum(a != b for a, b in zip(ids, others, strict=False)) or 'some'} of {len(ids)} "
            "crystals differ"
        )
        assert [proposal for _, proposal in first] == [proposal for _, proposal in second], (
            "parents or conditions differ"
        )
        other = [crystal.id for crystal, _ in self.made(seed=SEED + 1)]
        return (
            "another seed gives others"
            if set(other) - set(ids)
            else "another seed gives the same ones"
        )

    def no_more(self) -> str:
        told = []
        for n in (1, 2, _N_ASKED):
            made = self.made(n)
            assert len(made) <= n, (
                f"asked for {n}, it gave "
                f"{'at least ' if len(made) == n + _N_MORE else ''}{len(made)}"
            )
            told.append(f"{len(made)} of {n}")
        return ", ".join(told)

    def inside(self) -> str:
        self.some()
        for crystal, _ in self.made(2 * _N_ASKED):
            assert not (reason := self.space.violation(crystal.symbols)), (
                f"{crystal.formula} {reason}"
            )
        return ", ".join(self.elements)

    def inside_narrower(self) -> str:
        """Bounds that leave half of the compositions, then without one of the elements."""
        if len(self.elements) < 2:
            raise Skipped("the space has one element")
        first, last = self.elements[0], self.elements[-1]
        spaces = {
            f"{first} up to 50 at%": SearchSpace(self.elements, maximum={first: 0.5}),
            f"{last} from 50 at%": SearchSpace(self.elements, minimum={last: 0.5}),
            f"{first} banned": self.space.without([first]),
        }
        told = []
        for name, space in spaces.items():
            try:
                made = self.made(_N_ASKED, space=space)
            except InputError as error:
                told.append(f"{name}: refused, {error.message}")
                continue
            for crystal, _ in made:
                assert not (reason := space.violation(crystal.symbols)), (
                    f"{name}: {crystal.formula} {reason}"
                )
            told.append(f"{name}: {len(made)} of {_N_ASKED}")
        return "; ".join(told)

    def parents(self) -> str:
        known = {item.candidate.id for item in self.labelled}
        named = [parent for _, proposal in self.some() for parent in proposal.parents]
        assert not isinstance(self.some()[0][1].parents, str), (
            "parents are a text, expected ids in a tuple"
        )
        foreign = [parent for parent in named if parent not in known]
        assert not foreign, f"{foreign[0]!r} is no labelled candidate"
        return f"{len(set(named))} labelled candidates are parents" if named else "no parents named"

    def with_few(self, n: int) -> str:
        """Before and after it has learned: it works, or gives nothing."""
        labelled = self.labelled[:n]
        told = [f"{len(self.made(labelled=labelled, checkpoint=None))} of {_N_ASKED}"]
        if self.checkpoint is not None:
            told.append(f"{len(self.made(labelled=labelled))} of {_N_ASKED} with what it learned")
        generator = built(self.spec)
        if isinstance(generator, Trainable) and (
            not isinstance(generator, NeedsLabels) or generator.is_ready(labelled)
        ):
            with library_seeds(SEED):
                context = self.context(labelled=labelled, checkpoint=None)
                generator.train(context.labelled, rng=np.random.default_rng(SEED), context=context)
            told.append("it learns from so few")
        return ", ".join(told)

    def context_unchanged(self) -> str:
        context = self.context()
        before = _told(context)
        generator = built(self.spec)
        with library_seeds(SEED):
            list(
                itertools.islice(
                    generator.generate(_N_ASKED, rng=np.random.default_rng(SEED), context=context),
                    _N_ASKED,
                )
            )
            assert _told(context) == before, "generate changes its context"
            if self.checkpoint is not None and isinstance(generator, Trainable):
                generator.train(context.labelled, rng=np.random.default_rng(SEED), context=context)
                assert _told(context) == before, "train changes its context"
        return ""

    def learns(self) -> str:
        generator = built(self.spec)
        try:
            checkpoint = self.trained(generator)
        except InputError as error:
            raise Skipped(f"not from these labels: {error.message}; give it others") from error
        assert isinstance(checkpoint, Checkpoint), (
            f"train gave {type(checkpoint).__name__}, expected a Checkpoint"
        )
        wrong = [name for name, value in checkpoint.facts.items() if not isinstance(value, str)]
        assert not wrong, f"the facts {', '.join(wrong)} are no texts"
        size = sum(np.asarray(array).nbytes for array in checkpoint.tensors.values())
        ready = not isinstance(generator, NeedsLabels) or generator.is_ready(self.labelled)
        return f"from {len(self.labelled)} labels, {size / 1e6:.2g} MB" + (
            "" if ready else "; in a campaign it waits for more labels"
        )

    def learned(self) -> Checkpoint:
        if self.checkpoint is None:
            raise Skipped("it learned nothing")
        return self.checkpoint

    def learns_again(self) -> str:
        first, second = self.learned(), self.trained(built(self.spec))
        assert first.tensors.keys() == second.tensors.keys(), "other arrays the second time"
        unlike = [
            name
            for name, array in first.tensors.items()
            if not np.array_equal(array, second.tensors[name])
        ]
        assert not unlike, (
            f"{len(unlike)} of {len(first.tensors)} arrays differ the second time, {unlike[0]} "
            "first"
        )
        return f"{len(first.tensors)} arrays"

    def round_trip(self) -> str:
        """What comes back from bytes is the same, and proposes and learns on as the original
        does.
        """
        kept = self.learned()
        found = checkpoint_from_bytes(checkpoint_to_bytes(kept))
        assert found.tensors.keys() == kept.tensors.keys(), "arrays are lost"
        for name, array in kept.tensors.items():
            same = found.tensors[name].shape == np.shape(array) and np.array_equal(
                found.tensors[name], array
            )
            assert same, f"the array {name} does not come back as it was"
        assert dict(found.facts) == dict(kept.facts), "facts do not come back"
        ids, again = (
            [crystal.id for crystal, _ in made]
            for made in (self.reference, self.made(checkpoint=found))
        )
        assert ids == again, "what was read from bytes proposes other crystals"
        self.trained(built(self.spec), found)
        return f"{len(checkpoint_to_bytes(kept)) / 1e6:.2g} MB"

    def gate(self) -> str:
        generator, kept = built(self.spec), self.learned()
        told = []
        for name, old in (("none before", None), ("itself before", kept)):
            with library_seeds(SEED):
                answer = generator.is_improvement(kept, old, self.labelled, context=self.context())
            is_pair = isinstance(answer, tuple) and len(answer) == 2
            is_right = (
                is_pair
                and isinstance(answer[0], bool | np.bool_)
                and isinstance(answer[1], Mapping)
            )
            assert is_right, (
                f"is_improvement gave {type(answer).__name__}, expected a truth value and "
                "figures by name"
            )
            for figure, value in answer[1].items():
                assert isinstance(value, int | float | np.number), (
                    f"the figure {figure} is {type(value).__name__}, expected a number"
                )
            told.append(f"{name}: {'used' if answer[0] else 'not used'}")
        return ", ".join(told)


def _told(context: GenerationContext) -> str:
    """All that a context holds, so that a change shows."""
    labelled = [
        [item.candidate.id, item.candidate.crystal.to_bytes().hex(), dict(item.values)]
        for item in context.labelled
    ]
    tensors = (
        {name: np.asarray(array).tobytes() for name, array in context.checkpoint.tensors.items()}
        if context.checkpoint
        else {}
    )
    return content_hash(
        [
            labelled,
            tensors,
            repr(context.space),
            repr(context.objective),
            [item.id for item in context.pending],
        ]
    )


def check_generator(
    generator: str,
    params: Mapping[str, Any] | None = None,
    *,
    elements: Sequence[str] = ELEMENTS,
    labelled: Sequence[LabelledCandidate] = (),
    quantity: str = ENERGY_PER_ATOM.name,
    folder: Path | None = None,
) -> list[Finding]:
    """For pytest: run the kit on a generator by name or ``module:Class``. Raises AssertionError
    that lists what failed.

    ``labelled``: what it learns from where the kit's own alloys of ``elements`` are not what it is
    for; ``quantity``: whose values are to be small; ``folder``: where a user's module lies.
    """
    spec = spec_of("generators", generator, params, elements, folder)
    built(spec)
    return passed(examine_generator(spec, labelled=labelled, quantity=quantity))
