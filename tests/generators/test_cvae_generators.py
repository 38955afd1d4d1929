"""Generators on the tabular form as plug-ins: training, targets, screens, and clear errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from carbon_cases import CARBON, GRAPHITE, QUICK, SPACE, TARGET, context, labelled_crystals

from campaign.errors import InputError
from campaign.types import Candidate
from generators.cvae.data import (
    bootstrap,
)
from generators.cvae.environment import prototype
from generators.cvae.feasible import Condition
from generators.cvae.latent import refine_latent
from generators.cvae.model import TabularVAE
from generators.cvae.plugin import (
    CVAE,
    CVAEConfig,
    RandomEnvironment,
    RandomEnvironmentConfig,
    TabularConfig,
    TabularVAEGenerator,
)
from generators.cvae.refine import Recipe
from generators.cvae.screen import LocalEnvironment, LocalEnvironmentConfig
from generators.cvae.settings import RefineConfig, SitesConfig, TargetConfig
from generators.cvae.sites import (
    random_table,
)
from generators.cvae.store import from_checkpoint
from generators.cvae.table import TabularCrystal, decode, encode, from_row, to_row, variables_of
from generators.cvae.train import TrainingSettings, train


def test_the_generators_train_on_labels_and_propose_new_nets() -> None:
    labelled = labelled_crystals(20)
    assert len({item.candidate.id for item in labelled}) == 20
    settings = {
        "training": {
            "epochs": 3,
            "hidden": 32,
            "latent": 8,
            "components": 3,
            "descriptions": 4,
            "best": 1.0,
        },
        "min_labels": 10,
    }
    options = {"target": TARGET, **QUICK, **settings}
    conditional = CVAE(
        CVAEConfig.model_validate({**options, "conditions": "data", "latent": {"steps": 5}})
    )
    other = TabularVAEGenerator(TabularConfig.model_validate(options))
    for generator, label in ((conditional, "cvae"), (other, "vae")):
        rng = np.random.default_rng(3)
        assert list(generator.generate(5, rng=rng, context=context(labelled))) == [], (
            "nothing before there are weights"
        )
        assert not generator.is_ready(labelled[:5])
        checkpoint = generator.train(labelled, rng=rng, context=context(labelled))
        assert generator.is_improvement(checkpoint, None, labelled, context=context(labelled))[0]
        found = list(
            generator.generate(5, rng=rng, context=context(labelled, checkpoint=checkpoint))
        )
        assert found
        known = {proposal.condition["net"] for _, proposal in found}
        assert len(known) == len(found)
        assert all(str(proposal.condition["made"]).startswith(label) for _, proposal in found)
        old = set(generator._nets([item.candidate.crystal for item in labelled]))
        assert not known & old
    with pytest.raises(InputError, match="train for this target"):
        list(
            other.generate(
                1,
                rng=np.random.default_rng(0),
                context=context(
                    labelled,
                    checkpoint=conditional.train(
                        labelled, rng=np.random.default_rng(1), context=context(labelled)
                    ),
                ),
            )
        )


@pytest.mark.parametrize("variant", ["paper", "oreloop"])
def test_the_latent_descent_takes_the_spectrum_of_its_variant(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[float, float] | None] = []

    def watched(model: object, conditions: list[Condition], *rest: Any) -> Any:
        taken.append(rest[1].cutoff)
        return refine_latent(model, conditions, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("generators.cvae.plugin.refine_latent", watched)
    labelled = labelled_crystals(12)
    generator = CVAE(
        CVAEConfig.model_validate(
            {
                "target": TARGET,
                **QUICK,
                "refine": {"variant": "paper", "steps": 5} if variant == "paper" else {},
                "conditions": "data",
                "min_labels": 10,
                "latent": {"rounds": 1, "steps": 2},
                "training": {"epochs": 1, "hidden": 8, "latent": 4, "components": 2},
            }
        )
    )
    rng = np.random.default_rng(0)
    checkpoint = generator.train(labelled, rng=rng, context=context(labelled))
    list(generator.generate(3, rng=rng, context=context(labelled, checkpoint=checkpoint)))
    assert set(taken) == {None if variant == "paper" else (3.0, 1.0)}


def test_the_screen_says_what_is_wrong() -> None:
    screen = LocalEnvironment(LocalEnvironmentConfig.model_validate({"target": TARGET}))
    assert screen.judge(Candidate(prototype("diamond")), SPACE).reason == "C has 4 bonds, wanted 3"
    assert (
        screen.judge(Candidate(prototype("graphite")), SPACE).reason
        == "a net of 2 dimensions, wanted 3"
    )
    assert "elements" in screen.judge(Candidate(prototype("boron_nitride")), SPACE).reason
    flat = LocalEnvironment(
        LocalEnvironmentConfig.model_validate({"target": TARGET, "dimension": 2})
    )
    assert flat.judge(Candidate(prototype("graphite")), SPACE).accepted


def test_targets_of_two_elements_and_of_four_bonds() -> None:
    nitride = TargetConfig(prototypes=("boron_nitride",), bonds={"B-N": 1.9}).environment()
    assert nitride.coordination == (3, 3)
    assert nitride.bond_lengths[0, 0] == 0.0, "B-B is no bond of the target"
    diamond = TargetConfig(prototypes=("diamond", "lonsdaleite")).environment()
    assert diamond.coordination == (4,)
    silica = TargetConfig(prototypes=("cristobalite",)).environment()
    assert dict(zip(silica.species, silica.coordination, strict=True)) == {8: 2, 14: 4}
    for environment, limits in (
        (nitride, SitesConfig(sites=(2, 4), atoms=(4, 40)).limits(nitride)),
        (diamond, SitesConfig(atoms=(4, 40)).limits(diamond)),
    ):
        parts = list(
            bootstrap(
                60,
                environment,
                limits,
                Recipe(restarts=4, volume=(4.5, 10.0)),
                np.random.default_rng(3),
            )
        )
        assert sum(int(part.is_valid.sum()) for part in parts) >= 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TargetConfig(prototypes=("graphene",)), "no target is called graphene"),
        (lambda: TargetConfig(), "expected a target"),
        (
            lambda: TargetConfig(prototypes=("graphite", "boron_nitride")).environment(),
            "the same elements",
        ),
        (
            lambda: TargetConfig(prototypes=("graphite",), bonds={"C-Si": 2.0}).environment(),
            "expected two elements of the target",
        ),
        (
            lambda: TargetConfig(prototypes=("graphite", "diamond")).environment(),
            "have \\[3, 4\\] bonds",
        ),
        (
            lambda: TargetConfig(files=(Path("missing.cif"),)).environment(),
            "cannot read the target",
        ),
        (lambda: SitesConfig(sites=(3, 9)), "expected from 1 to 8"),
        (
            lambda: SitesConfig(formula={"Si": 1}).limits(GRAPHITE),
            "expected the elements of the target",
        ),
        (lambda: SitesConfig(given=((227, (7,)),)).limits(GRAPHITE), "cannot have 3 bonds"),
        (lambda: SitesConfig(given=((194, (99,)),)).limits(GRAPHITE), "no Wyckoff position 99"),
        (lambda: from_row([194.0] * 7 + [-1.0] * 32, CARBON), "no Wyckoff site"),
        (lambda: from_row([194.0] * 5, CARBON), "expected 39 columns"),
        (
            lambda: to_row(
                TabularCrystal(1, (5.0,) * 6, (0,) * 9, ((0.1, 0.2, 0.3),) * 9, (CARBON,) * 9)
            ),
            "at most 8 Wyckoff sites",
        ),
        (lambda: train([], (CARBON,), TrainingSettings()), "got none"),
    ],
)
def test_bad_input_is_told(make: object, message: str) -> None:
    with pytest.raises((InputError, ValueError), match=message):
        make()  # type: ignore[operator]


def test_a_given_set_of_sites_is_kept() -> None:
    config = SitesConfig(given=((229, (0, 0)),))
    assert config.limits(GRAPHITE).bonds == (3,)
    generator = RandomEnvironment(
        RandomEnvironmentConfig(
            target=TargetConfig.model_validate(TARGET),
            sites=config,
            refine=RefineConfig(restarts=4),
        )
    )
    for crystal, proposal in generator.generate(1, rng=np.random.default_rng(0), context=context()):
        assert proposal.condition["space_group"] == 229
        assert len(crystal) == len(
            decode(
                random_table(
                    (229, ((0, CARBON), (0, CARBON))), (8.0, 9.0), np.random.default_rng(0)
                )
            )
        )


def test_models_refuse_weights_of_another_kind() -> None:
    from campaign.types import Checkpoint

    with pytest.raises(InputError, match="expected weights of kind tabular_vae"):
        from_checkpoint(Checkpoint(tensors={}))
    assert issubclass(TabularVAE, torch.nn.Module)


def test_variables_are_those_of_the_symmetry() -> None:
    graphite = encode(prototype("graphite"))
    assert variables_of(graphite).tolist() == pytest.approx([2.46, 6.70], abs=1e-6)
