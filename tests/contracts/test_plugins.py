"""What every generator, surrogate, embedder and screen that ships must hold: the kits that users
have.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from campaign import plugins
from campaign.checkpoints import checkpoint_to_bytes
from campaign.crystals.lattice import supercell
from campaign.protocols import GenerationContext, PluginSpec
from campaign.testing import check_embedder, check_generator, check_screen, check_surrogate
from campaign.testing.bench import ELEMENTS, alloys, labelled_of
from campaign.types import Crystal, Objective, SearchSpace
from generators.pcdvae import plugin
from generators.pcdvae.optimise import fit_ensemble

PCDVAE: dict[str, Any] = {
    "min_labels": 6,
    "training": {"epochs": 2, "batch_size": 8},
    "sampler": {"use": "focused", "steps": 4, "ancestral": 2},
    "optimisation": {"stages": [2, 5]},
}
LEARNING: dict[str, Any] = {
    "training": {"steps": 6, "again": 3},
    "steps": 2,
    "min_distance": 0.01,
    "volume_per_atom": [0.01, 10_000],
}
CARBON: dict[str, Any] = {"target": {"prototypes": ["graphite"], "bonds": {"C-C": 1.872}}}
GENERATORS = [
    ("random_alloy", {}),
    ("cross_entropy_alloy", {"repeats": [2, 2, 1]}),
    ("perturbed_alloy", {}),
    ("local_search", {}),
    ("guided_search", {}),
    ("prototypes", {}),
]
SLOW_GENERATORS = [
    ("ordered_alloy", {}),
    ("random_crystal", {}),
    ("pcdvae", PCDVAE),
    ("flow_matching", LEARNING | {"network": {"width": 16, "layers": 1}}),
    ("flow_matching", LEARNING | {"architecture": "matrix"}),
    ("diffusion", LEARNING),
    ("regression_modifier", LEARNING),
]
NOT_FROM_ALLOYS = {
    "alloy_dataset": "reads the state of its campaign's own data set",
    "ion_exchange": "needs a file of known crystals",
    "cvae": "carbon",
    "tabular_vae": "carbon",
    "random_environment": "carbon",
}
SURROGATES = [
    ("gp", {}),
    ("multi_task_gp", {}),
    ("deep_kernel_gp", {"steps": 60}),
    ("ensemble", {"steps": 100}),
]
EMBEDDERS = [
    ("alloy", {}),
    ("composition", {}),
    ("soap", {"n_max": 3, "l_max": 2}),
    ("power_spectrum", {}),
]
SCREENS: list[tuple[str, dict[str, Any]]] = [
    ("above_hull", {"oracle": "lennard_jones"}),
    ("local_environment", CARBON),
]
NEED_ENGINES = {"relaxation", "phonons"}


def test_every_generator_is_looked_at() -> None:
    assert {use for use, _ in (*GENERATORS, *SLOW_GENERATORS)} | NOT_FROM_ALLOYS.keys() == set(
        plugins.known("generators")
    )
    assert {use for use, _ in SURROGATES} == set(plugins.known("surrogates"))
    assert {use for use, _ in EMBEDDERS} | {"mace", "pcdvae"} == set(plugins.known("embedders"))
    assert {use for use, _ in SCREENS} | NEED_ENGINES == set(plugins.known("screens"))


@pytest.mark.parametrize(("use", "params"), GENERATORS)
def test_generators(use: str, params: dict[str, Any]) -> None:
    findings = {finding.check: finding for finding in check_generator(use, params)}
    assert findings["proposes crystals"].status == "passed", "it was looked at with crystals"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("use", "params"), SLOW_GENERATORS)
def test_generators_that_take_long(
    use: str, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "fit_ensemble", partial(fit_ensemble, steps=20))
    findings = {finding.check: finding for finding in check_generator(use, params)}
    if use != "regression_modifier":  # so few steps give it no cells
        assert findings["proposes crystals"].status == "passed", "it was looked at with crystals"


def graphite() -> Crystal:
    lattice = [[2.46, 0, 0], [-1.23, 2.13042, 0], [0, 0, 6.7]]
    sites = [[0, 0, 0.25], [0, 0, 0.75], [1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
    return Crystal(np.array(lattice), np.array(sites), np.full(4, 6, dtype=np.uint8))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_generators_towards_an_environment() -> None:
    check_generator(
        "random_environment", CARBON, elements=("C",), labelled=labelled_of([graphite()], ("C",))
    )


@pytest.mark.parametrize(("use", "params"), SURROGATES)
def test_surrogates(use: str, params: dict[str, Any]) -> None:
    check_surrogate(use, params)


@pytest.mark.parametrize(("use", "params"), EMBEDDERS)
def test_embedders(use: str, params: dict[str, Any]) -> None:
    check_embedder(use, params)


def test_the_embedder_of_a_trained_network(tmp_path: Path) -> None:
    labelled = labelled_of(alloys(ELEMENTS, 12), ELEMENTS)
    generator = plugins.build(
        PluginSpec(group="generators", use="pcdvae", params=PCDVAE, elements=ELEMENTS)
    )
    context = GenerationContext(
        space=SearchSpace(ELEMENTS),
        objective=Objective("energy_per_atom", "minimize"),
        labelled=labelled,
    )
    trained = generator.train(labelled, rng=np.random.default_rng(0), context=context)
    (tmp_path / "weights.safetensors").write_bytes(checkpoint_to_bytes(trained))
    check_embedder("pcdvae", {"weights": tmp_path / "weights.safetensors"})


@pytest.mark.parametrize(("use", "params"), SCREENS)
def test_screens(use: str, params: dict[str, Any]) -> None:
    elements = ("C",) if params is CARBON else ELEMENTS
    crystals = [graphite()] if params is CARBON else [supercell("fcc", (1, 1, 1), ["Ni", "Fe"])]
    findings = {
        finding.check: finding
        for finding in check_screen(use, params, elements=elements, crystals=crystals)
    }
    assert findings["reasons"].detail != "refuses none of these"
