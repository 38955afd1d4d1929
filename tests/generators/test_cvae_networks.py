"""Networks on the tabular form: sizes, encodings, what they give back, and conditions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from carbon_cases import CARBON, GRAPHITE, LIMITS

from campaign.errors import InputError
from generators.cvae.data import (
    bootstrap,
    distinct,
    fitting,
)
from generators.cvae.descent import spectral_loss
from generators.cvae.environment import prototype
from generators.cvae.feasible import SiteLimits
from generators.cvae.free_variables import batch_of
from generators.cvae.latent import DualLevel, refine_latent
from generators.cvae.loss import loss_and_slope
from generators.cvae.model import Categories, Sizes, Variant, discrete_of
from generators.cvae.refine import Recipe
from generators.cvae.sites import (
    SiteModel,
    condition_of,
    random_condition,
    random_table,
)
from generators.cvae.store import from_checkpoint, rows_of, tables_of, to_checkpoint
from generators.cvae.table import decode, encode
from generators.cvae.train import TrainingSettings, sample, sample_all, train


def test_the_networks_have_the_papers_sizes() -> None:
    """330 inputs of 30 columns in 10 components, 1,024 hidden, 128 latent, a condition of 128."""
    rng = np.random.default_rng(8)
    tables = [random_table(random_condition(LIMITS, rng), (7.0, 11.0), rng) for _ in range(40)]
    trained = train(tables, (CARBON,), TrainingSettings(epochs=1), sizes=Sizes())
    model = trained.model
    assert model.mixture.n_inputs == 330
    assert [layer.in_features for layer in model.encoder if isinstance(layer, torch.nn.Linear)] == [
        330,
        1024,
        1024,
    ]
    assert [layer.in_features for layer in model.decoder if isinstance(layer, torch.nn.Linear)] == [
        256,
        1024,
        1024,
    ]
    assert model.decoder[-1].out_features == 330


@pytest.mark.parametrize("form", ["published", "better"])
def test_the_mixture_encoding_comes_back(form: str) -> None:
    """A component and a residual give the value again; soft mixing of the paper's variant averages
    the modes.
    """
    from generators.cvae.mixture import Mixture

    rng = np.random.default_rng(9)
    columns = np.concatenate([rng.normal(0.0, 0.01, (300, 2)), rng.normal(5.0, 0.02, (300, 2))])
    mixture = Mixture.fit(columns, 3, 0)
    one_hot, residual = mixture.encode(columns, rng)
    assert np.allclose(
        mixture.decode(20 * one_hot.double(), residual.double(), soft=form == "published").numpy(),
        columns,
        atol=1e-3,
    )
    even = mixture.decode(
        torch.zeros_like(one_hot), torch.zeros_like(residual), soft=form == "published"
    )
    nearest = min(abs(float(even[0, 0]) - float(mean)) for mean in mixture.means[0])
    assert (nearest < 1e-6) == (form == "better")


@pytest.mark.parametrize("is_conditional", [True, False])
def test_a_small_model_gives_back_what_it_learned(is_conditional: bool) -> None:
    table = encode(prototype("graphite"))
    rows = [table] * 50
    settings = TrainingSettings(epochs=150, batch_size=50)
    trained = train(
        rows, (CARBON,), settings, sizes=Sizes(8, 64, 8, 1), is_conditional=is_conditional, seed=1
    )
    rng = np.random.default_rng(0)
    made = (
        sample(trained.model, [condition_of(table)] * 5, rng)
        if is_conditional
        else sample_all(trained.model, 5, rng)
    )
    for one in made:
        assert one is not None
        assert condition_of(one) == condition_of(table)
        assert np.allclose(one.cell, table.cell, atol=0.05)
    kept, tables = from_checkpoint(to_checkpoint(trained.model, [table], trained.metrics))
    assert tables == [table]
    again = (
        sample(kept, [condition_of(table)] * 5, np.random.default_rng(0))
        if is_conditional
        else sample_all(kept, 5, np.random.default_rng(0))
    )
    assert again == made
    assert tables_of(*rows_of([table])) == [table]


@pytest.mark.parametrize(
    ("former", "variant"), [("published", "paper"), ("better", "oreloop")], ids=["paper", "oreloop"]
)
def test_a_checkpoint_under_its_earlier_word_is_read(former: str, variant: Variant) -> None:
    table = encode(prototype("graphite"))
    model = train(
        [table] * 4,
        (CARBON,),
        TrainingSettings(epochs=1),
        variant=variant,
        sizes=Sizes(4, 8, 4, 1),
        seed=0,
    ).model
    made = to_checkpoint(model, [table], {})
    facts = {name: value for name, value in made.facts.items() if name != "variant"}
    earlier = replace(made, facts={**facts, "form": former})
    assert from_checkpoint(earlier)[0].variant == from_checkpoint(made)[0].variant == variant


def test_the_gradient_reaches_the_latent_vector() -> None:
    """Algorithm 2: the slope through decoder, mixture and symmetry is that of the loss, and the
    descent lowers it.
    """
    from generators.cvae.train import Decoder, normal

    rng = np.random.default_rng(10)
    tables = [random_table(random_condition(LIMITS, rng), (7.0, 11.0), rng) for _ in range(12)]
    model = train(
        tables,
        (CARBON,),
        TrainingSettings(epochs=5),
        variant="paper",
        sizes=Sizes(6, 32, 8, 3),
        seed=2,
    ).model.double()
    latent = normal(len(tables), model, rng).double()
    decoder = Decoder(model, [condition_of(table) for table in tables], latent)
    assert np.allclose(decoder(latent).detach().numpy(), decoder.batch.variables, atol=1e-6), (
        "at the start the maps give the crystals"
    )

    def loss(z: torch.Tensor) -> torch.Tensor:
        return spectral_loss(decoder(z), decoder.batch, GRAPHITE.stage(3.0, 1.0))

    z = latent.clone().requires_grad_(True)
    value = loss(z)
    value.sum().backward()
    assert z.grad is not None
    step = 1e-5
    for k in range(latent.shape[1]):
        shift = torch.zeros_like(latent)
        shift[:, k] = step
        numerical = (loss(latent + shift) - loss(latent - shift)) / (2 * step)
        smooth = value.detach() < 1e5
        assert torch.allclose(
            numerical[smooth],
            z.grad[smooth, k],
            rtol=1e-3,
            atol=1e-4 * float(z.grad[smooth].abs().max()),
        )
    after = refine_latent(
        model.float(),
        [condition_of(table) for table in tables],
        GRAPHITE,
        DualLevel(steps=30, rate=0.05),
        np.random.default_rng(0),
    )
    plain = refine_latent(
        model,
        [condition_of(table) for table in tables],
        GRAPHITE,
        DualLevel(steps=0),
        np.random.default_rng(0),
    )
    lower, higher = (
        loss_and_slope(batch_of(some, (CARBON,)), GRAPHITE.stage(3.0, 1.0))[0]
        for some in (after, plain)
    )
    assert np.median(lower) < np.median(higher)


def test_conditions_follow_the_data() -> None:
    rng = np.random.default_rng(11)
    tables = [random_table((194, ((9, CARBON), (10, CARBON))), (7.0, 11.0), rng) for _ in range(20)]
    model = SiteModel.fit(tables)
    drawn = [model.draw(SiteLimits((CARBON,), (3,), (1,), atoms=(2, 60)), rng) for _ in range(20)]
    assert {group for group, _ in drawn} == {194}
    assert drawn.count((194, ((9, CARBON), (10, CARBON)))) >= 5
    with pytest.raises(InputError, match="none of the space groups"):
        model.draw(SiteLimits((CARBON,), (3,), (1,), space_groups=(225,)), rng)
    categories = Categories.of(discrete_of([condition_of(table) for table in tables], (CARBON,)))
    with pytest.raises(InputError, match="space group 225 was not in the data"):
        categories.encode([(225, ((9, CARBON),))], (CARBON,))


def test_a_bootstrap_finds_frameworks_of_different_nets() -> None:
    known: set[str] = set()
    recipe = Recipe(restarts=4, again="spectra", dimension=3, largest_loss=5.0)
    found = [
        item
        for part in bootstrap(120, GRAPHITE, LIMITS, recipe, np.random.default_rng(1))
        for item in distinct(part, GRAPHITE, known)
    ]
    assert len(found) == len(known) >= 5
    assert len(fitting([decode(table) for table, _ in found], GRAPHITE)) == len(found)
