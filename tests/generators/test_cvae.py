"""The tabular form and what is made of it: crystals there and back, spectra and gradients against published and numerical ones, refinement,
the networks' sizes, and clear errors."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import SMALL, merged
from typer.testing import CliRunner

from campaign import config as configs
from campaign.api import Campaign
from campaign.checkpoints import checkpoint_from_bytes
from campaign.cli import app
from campaign.crystals.so3 import PowerSpectrum, solid_pieces
from campaign.errors import InputError
from campaign.protocols import GenerationContext
from campaign.types import Candidate, Crystal, LabelledCandidate, Objective, SearchSpace
from generators.cvae import crystal_nets
from generators.cvae.commands import nets_of
from generators.cvae.data import bootstrap, descriptions, distinct, fitting, read_crystals, subgroups
from generators.cvae.descent import descent, spectral_loss
from generators.cvae.environment import Environment, Spectrum, limits_of, prototype, site_spectra
from generators.cvae.free_variables import Batch, batch_of
from generators.cvae.latent import DualLevel, refine_latent
from generators.cvae.model import Categories, Sizes, TabularVAE, discrete_of
from generators.cvae.nets import dimensions_of
from generators.cvae.plugin import CVAE, CVAEConfig, RandomEnvironment, RandomEnvironmentConfig, TabularConfig, TabularVAEGenerator
from generators.cvae.refine import Recipe, is_valid, loss_and_slope, refine, with_volume
from generators.cvae.screen import LocalEnvironment, LocalEnvironmentConfig
from generators.cvae.settings import RefineConfig, SitesConfig, TargetConfig
from generators.cvae.sites import SiteLimits, SiteModel, allows, check_condition, condition_of, random_condition, random_table
from generators.cvae.store import from_checkpoint, rows_of, tables_of, to_checkpoint
from generators.cvae.table import TabularCrystal, decode, encode, from_row, to_row, variables_of
from generators.cvae.tensors import TensorSpectrum
from generators.cvae.train import TrainingSettings, sample, sample_all, train
from generators.wyckoff import group_of

CARBON = 6
GRAPHITE = Environment((prototype("graphite"),), {"C-C": 1.872})
LIMITS = SiteLimits((CARBON,), (3,), (1,), atoms=(4, 60), sites=(1, 4))
SPACE = SearchSpace(("C",))
ENERGY = Objective("energy_per_atom", "minimize")
PUBLISHED = {
    2.0: [9.765678646, 0, 1.199668677, 0.947121561, 0.048670187, -1.281692492, 0, -0.359840958, -0.349054443, -0.020649122, 0.168215206]
    + [0, 0.107934397, 0.128641358, 0.008760728],
    2.1: [
        16.699144,
        0,
        2.177401,
        1.796298,
        0.096962,
        -1.971523,
        0,
        -0.619228,
        -0.635147,
        -0.03978,
        0.232761,
        0,
        0.176101,
        0.224579,
        0.01632,
    ],
    2.2: [25.936542, 0, 3.565811, 3.060105, 0.172667, -2.668766, 0, -0.953912, -1.032705, -0.068239, 0.274605]
    + [0, 0.255187, 0.34851, 0.026968],
}


def random_batch(n: int, seed: int, limits: SiteLimits = LIMITS) -> Batch:
    rng = np.random.default_rng(seed)
    return batch_of([random_table(random_condition(limits, rng), (7.0, 11.0), rng) for _ in range(n)], limits.species)


def nothing(spectrum: PowerSpectrum) -> Spectrum:
    return Spectrum(spectrum, np.zeros((1, spectrum.size)), (CARBON,))


@pytest.mark.parametrize("cutoff", PUBLISHED)
def test_graphite_has_the_published_spectrum(cutoff: float) -> None:
    """The values of PyXtal's code for n_max 2, l_max 4, alpha 1.5, by pairs (1,1), (2,1), (2,2); all four atoms are alike."""
    found = site_spectra(batch_of([encode(prototype("graphite"))], (CARBON,)), nothing(PowerSpectrum(cutoff, 2, 4, 1.5)))
    assert len(found) == 2
    assert np.abs(found - PUBLISHED[cutoff]).max() < 2e-6


def test_diamond_has_the_published_spectrum_and_distance_from_graphite() -> None:
    settings = PowerSpectrum(2.0, 2, 4, 1.5)
    found = site_spectra(batch_of([encode(prototype("diamond"))], (CARBON,)), nothing(settings))[0]
    wanted = [4.382702, 0, 0, 0.503424, 0.061328, -0.856225, 0, 0, -0.197057, -0.027065, 0.167276, 0, 0, 0.077135, 0.011945]
    assert np.abs(found - wanted).max() < 2e-6
    assert ((found - PUBLISHED[2.0]) ** 2).sum() == pytest.approx(30.9606, abs=1e-3)


def test_tabulated_pieces_are_the_radial_functions() -> None:
    from campaign.crystals.so3 import radial_functions

    settings = PowerSpectrum(3.0, 3, 3, 1.0)
    pieces, r = solid_pieces(settings), np.linspace(0.3, 2.9, 40)
    place = r**2 * len(pieces) / settings.cutoff**2
    t = (place - place.astype(int))[:, None, None]
    p = pieces[place.astype(int)]
    made = p[..., 0] + t * (p[..., 1] + t * (p[..., 2] + t * p[..., 3]))
    orders = np.arange(4)
    wanted = radial_functions(settings)(r) * np.sqrt(2 * np.sqrt(2) * np.pi / np.sqrt(2 * orders + 1)) / r[:, None, None] ** orders
    assert np.abs(made - wanted).max() < 1e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("kind", ["target", "long", "shells"])
def test_slopes_are_those_of_the_loss(kind: str) -> None:
    """Central differences in double precision, to lattice and coordinates, for all crystal families."""
    from generators.cvae import kernel

    batch = with_volume(random_batch(30, 1), (6.0, 12.0))
    assert len(set(batch.families.tolist())) >= 4
    objective = {
        "target": GRAPHITE.target.objective,
        "long": GRAPHITE.stage(4.0, 0.7).with_shells(GRAPHITE.shells(6, 0.85), 10.0),
        "shells": GRAPHITE.shells(9).objective,
    }[kind]

    def loss(variables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = kernel.refine_all(*batch.with_variables(variables).arguments, objective, limits_of(batch), 1, False)
        return found[0], found[1]

    value, slope = loss(batch.variables)
    assert np.isfinite(value).all()
    step = 1e-6
    for column in range(batch.variables.shape[1]):
        up, down = batch.variables.copy(), batch.variables.copy()
        up[:, column] += step
        down[:, column] -= step
        numerical = np.where(column < batch.counts, (loss(up)[0] - loss(down)[0]) / (2 * step), 0.0)
        assert np.abs(numerical - slope[:, column]).max() < 1e-6 * max(1.0, np.abs(slope).max()), column


def test_torch_agrees_with_the_compiled_loops() -> None:
    """Loss and gradients, for crystals of different size at once, of one element and of two."""
    two = Environment((prototype("boron_nitride"),))
    limits = SiteLimits((5, 7), (3, 3), (1, 1), atoms=(4, 60), sites=(2, 4))
    for environment, batch in ((GRAPHITE, random_batch(20, 2)), (two, random_batch(10, 3, limits))):
        batch = with_volume(batch, (6.0, 12.0))
        for stage in (environment.target, environment.stage(3.5, 0.8)):
            wanted, slope = loss_and_slope(batch, stage)
            variables = torch.from_numpy(batch.variables.copy()).requires_grad_(True)
            loss = TensorSpectrum(batch, stage).loss(variables)
            loss.sum().backward()
            assert variables.grad is not None
            assert np.allclose(loss.detach().numpy(), wanted, rtol=1e-9)
            assert np.allclose(variables.grad.numpy(), slope, rtol=1e-7, atol=1e-7 * np.abs(slope).max())


def test_the_loss_does_not_depend_on_the_description() -> None:
    """Other equivalent points, a subgroup, and another choice of cell have the same S; so has a rotated crystal."""
    rng = np.random.default_rng(4)
    table = encode(prototype("lonsdaleite"))
    value, _ = loss_and_slope(batch_of([table], (CARBON,)), GRAPHITE.target)
    others = descriptions(table, 8, rng)
    lower = subgroups(table, GRAPHITE, 6, rng)
    turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    crystal = decode(table)
    others.append(encode(Crystal(crystal.lattice @ turned, crystal.fractional + 0.217, crystal.numbers)))
    assert np.allclose(loss_and_slope(batch_of(others, (CARBON,)), GRAPHITE.target)[0], value, rtol=1e-7)
    assert lower, "PyXtal finds a subgroup"
    assert all(other.space_group != table.space_group for other in lower)
    assert np.allclose(loss_and_slope(batch_of(lower, (CARBON,)), GRAPHITE.target)[0], value, rtol=1e-3), "but for PyXtal's steps of 5e-4"


def test_every_space_group_comes_back() -> None:
    """A random crystal of each of the 230 groups: atoms, then encoded and decoded to the same atoms, and by the 39 columns."""
    rng = np.random.default_rng(5)
    for group in range(1, 231):
        positions = group_of(group).positions
        sites = ((0, CARBON),) if len(positions) == 1 else ((0, CARBON), (len(positions) // 2, CARBON))
        table = random_table((group, sites), (20.0, 20.0 + 1e-9), rng)
        crystal = decode(table)
        assert len(crystal) == table.n_atoms
        again = encode(crystal, precision=1e-4)
        assert again.space_group >= group, "no symmetry is lost"
        if again.space_group == group:
            assert again.n_atoms == table.n_atoms
        twice = decode(from_row(to_row(again), CARBON))
        before, after = (np.sort(np.linalg.norm(each.structure.distance_matrix, axis=1)) for each in (decode(again), twice))
        assert np.allclose(before, after, atol=1e-6), group
        assert twice.volume / len(twice) == pytest.approx(crystal.volume / len(crystal), rel=1e-5)
        assert np.allclose(np.sort(_shortest(crystal)), np.sort(_shortest(twice)), atol=1e-3), group


def _shortest(crystal: Crystal) -> np.ndarray:
    distances = crystal.structure.distance_matrix + 100 * np.eye(len(crystal))
    return np.quantile(distances.min(1), [0.0, 0.5, 1.0])


def test_a_point_off_its_site_is_taken_to_the_nearest_place_and_no_site_is_lost() -> None:
    cell = [194.0, 2.46, 2.46, 6.7, np.pi / 2, np.pi / 2, 2 * np.pi / 3]
    table = from_row([*cell, 9, 0.30, 0.69, 0.27, 10, 0.02, 0.97, 0.24] + [-1.0] * 24, CARBON)
    assert len(decode(table)) == 4
    assert loss_and_slope(batch_of([table], (CARBON,)), GRAPHITE.target)[0][0] < 1.0


def test_refinement_gives_the_targets_bonds_and_keeps_the_space_group() -> None:
    batch = random_batch(60, 6)
    found = refine(batch, GRAPHITE, Recipe(restarts=8), np.random.default_rng(0))
    assert found.is_valid.mean() > 0.3
    assert (loss_and_slope(found.batch, GRAPHITE.target)[0] == found.loss).all()
    for table, good, before in zip(found.batch.as_tables(), found.is_valid, batch.names, strict=True):
        assert condition_of(table) == condition_of(before)
        if good:
            crystal = decode(table)
            distances = crystal.structure.get_all_neighbors(1.872)
            assert {len(near) for near in distances} == {3}
    again = refine(batch, GRAPHITE, Recipe(restarts=8), np.random.default_rng(0))
    assert (again.batch.variables == found.batch.variables).all(), "the same seed gives the same crystals"


def test_refinement_beats_the_papers_descent() -> None:
    batch = random_batch(40, 7)
    plain = descent(batch, GRAPHITE.target, steps=200)
    by_tensors = descent(batch.subset(range(4)), GRAPHITE.target, steps=20, device="cpu")
    by_loops = descent(batch.subset(range(4)), GRAPHITE.target, steps=20)
    assert np.allclose(by_tensors.variables, by_loops.variables, rtol=1e-6), "the form for GPUs takes the same steps"
    ours = refine(batch, GRAPHITE, Recipe(restarts=0), np.random.default_rng(0))
    assert (loss_and_slope(plain, GRAPHITE.target)[0] <= loss_and_slope(batch, GRAPHITE.target)[0] + 1e-9).all()
    assert ours.is_valid.sum() > is_valid(plain, GRAPHITE).sum()


def test_frameworks_are_told_from_layers() -> None:
    tables = [encode(prototype("graphite")), encode(prototype("diamond"))]
    assert dimensions_of(batch_of(tables, (CARBON,)), Environment((prototype("diamond"),), {"C-C": 1.872})).tolist() == [2, 3]
    only = Recipe(restarts=0, dimension=3, volume=(1.0, 100.0))
    found = refine(batch_of(tables[:1], (CARBON,)), GRAPHITE, only, np.random.default_rng(0))
    assert found.is_valid.tolist() == [True]
    assert found.is_accepted.tolist() == [False]


def test_sites_that_cannot_have_the_bonds_are_left_out() -> None:
    diamond_site = encode(prototype("diamond"))
    assert allows(227, diamond_site.sites[0], 4)
    assert not allows(227, diamond_site.sites[0], 3), "a tetrahedral site has 4, 6 or 12 alike directions"
    with pytest.raises(InputError, match="cannot have 3 bonds"):
        check_condition(condition_of(diamond_site), LIMITS)
    with pytest.raises(InputError, match="no Wyckoff position 40"):
        check_condition((194, ((40, CARBON),)), LIMITS)
    with pytest.raises(InputError, match="not \\[1, 1\\] of each"):
        check_condition((1, ((0, 5), (0, 5), (0, 7))), SiteLimits((5, 7), (3, 3), (1, 1)))
    with pytest.raises(InputError, match="were found"):
        random_condition(SiteLimits((CARBON,), (3,), (1,), space_groups=(230,), atoms=(2, 6)), np.random.default_rng(0), tries=20)


def test_the_networks_have_the_papers_sizes() -> None:
    """330 inputs of 30 columns in 10 components, 1,024 hidden, 128 latent, a condition of 128."""
    rng = np.random.default_rng(8)
    tables = [random_table(random_condition(LIMITS, rng), (7.0, 11.0), rng) for _ in range(40)]
    trained = train(tables, (CARBON,), TrainingSettings(epochs=1), sizes=Sizes())
    model = trained.model
    assert model.mixture.n_inputs == 330
    assert [layer.in_features for layer in model.encoder if isinstance(layer, torch.nn.Linear)] == [330, 1024, 1024]
    assert [layer.in_features for layer in model.decoder if isinstance(layer, torch.nn.Linear)] == [256, 1024, 1024]
    assert model.decoder[-1].out_features == 330


@pytest.mark.parametrize("form", ["published", "better"])
def test_the_mixture_encoding_comes_back(form: str) -> None:
    """A component and a residual give the value again; soft mixing of the published form averages the modes."""
    from generators.cvae.mixture import Mixture

    rng = np.random.default_rng(9)
    columns = np.concatenate([rng.normal(0.0, 0.01, (300, 2)), rng.normal(5.0, 0.02, (300, 2))])
    mixture = Mixture.fit(columns, 3, 0)
    one_hot, residual = mixture.encode(columns, rng)
    assert np.allclose(mixture.decode(20 * one_hot.double(), residual.double(), soft=form == "published").numpy(), columns, atol=1e-3)
    even = mixture.decode(torch.zeros_like(one_hot), torch.zeros_like(residual), soft=form == "published")
    nearest = min(abs(float(even[0, 0]) - float(mean)) for mean in mixture.means[0])
    assert (nearest < 1e-6) == (form == "better")


@pytest.mark.parametrize("is_conditional", [True, False])
def test_a_small_model_gives_back_what_it_learned(is_conditional: bool) -> None:
    table = encode(prototype("graphite"))
    rows = [table] * 50
    settings = TrainingSettings(epochs=150, batch_size=50)
    trained = train(rows, (CARBON,), settings, sizes=Sizes(8, 64, 8, 1), is_conditional=is_conditional, seed=1)
    rng = np.random.default_rng(0)
    made = sample(trained.model, [condition_of(table)] * 5, rng) if is_conditional else sample_all(trained.model, 5, rng)
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


def test_the_gradient_reaches_the_latent_vector() -> None:
    """Algorithm 2: the slope through decoder, mixture and symmetry is that of the loss, and the descent lowers it."""
    from generators.cvae.train import Decoder, normal

    rng = np.random.default_rng(10)
    tables = [random_table(random_condition(LIMITS, rng), (7.0, 11.0), rng) for _ in range(12)]
    model = train(tables, (CARBON,), TrainingSettings(epochs=5), form="published", sizes=Sizes(6, 32, 8, 3), seed=2).model.double()
    latent = normal(len(tables), model, rng).double()
    decoder = Decoder(model, [condition_of(table) for table in tables], latent)
    assert np.allclose(decoder(latent).detach().numpy(), decoder.batch.variables, atol=1e-6), "at the start the maps give the crystals"

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
        assert torch.allclose(numerical[smooth], z.grad[smooth, k], rtol=1e-3, atol=1e-4 * float(z.grad[smooth].abs().max()))
    after = refine_latent(
        model.float(), [condition_of(table) for table in tables], GRAPHITE, DualLevel(steps=30, rate=0.05), np.random.default_rng(0)
    )
    plain = refine_latent(model, [condition_of(table) for table in tables], GRAPHITE, DualLevel(steps=0), np.random.default_rng(0))
    lower, higher = (loss_and_slope(batch_of(some, (CARBON,)), GRAPHITE.stage(3.0, 1.0))[0] for some in (after, plain))
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
        categories.encode(discrete_of([(225, ((9, CARBON),))], (CARBON,)))


def test_a_bootstrap_finds_frameworks_of_different_nets() -> None:
    known: set[str] = set()
    recipe = Recipe(restarts=4, again="spectra", dimension=3, largest_loss=5.0)
    found = [
        item for part in bootstrap(120, GRAPHITE, LIMITS, recipe, np.random.default_rng(1)) for item in distinct(part, GRAPHITE, known)
    ]
    assert len(found) == len(known) >= 5
    assert len(fitting([decode(table) for table, _ in found], GRAPHITE)) == len(found)


TARGET = {"prototypes": ["graphite"], "bonds": {"C-C": 1.872}}
QUICK = {"sites": {"atoms": [4, 60], "sites": [1, 4]}, "refine": {"restarts": 2}}


def context(labelled: list[LabelledCandidate] | None = None, **more: object) -> GenerationContext:
    return GenerationContext(space=SPACE, objective=ENERGY, labelled=tuple(labelled or ()), **more)  # type: ignore[arg-type]


def labelled_crystals(n: int) -> list[LabelledCandidate]:
    generator = RandomEnvironment(RandomEnvironmentConfig.model_validate({"target": TARGET, **QUICK}))
    made = [crystal for crystal, _ in generator.generate(n, rng=np.random.default_rng(2), context=context())]
    return [LabelledCandidate(candidate=Candidate(crystal), values={"energy_per_atom": -7.0 + 0.01 * k}) for k, crystal in enumerate(made)]


def test_the_generators_train_on_labels_and_propose_new_nets() -> None:
    labelled = labelled_crystals(20)
    assert len({item.candidate.id for item in labelled}) == 20
    settings = {"training": {"epochs": 3, "hidden": 32, "latent": 8, "components": 3, "descriptions": 4, "best": 1.0}, "least_labels": 10}
    options = {"target": TARGET, **QUICK, **settings}
    conditional = CVAE(CVAEConfig.model_validate({**options, "conditions": "data", "latent": {"steps": 5}}))
    other = TabularVAEGenerator(TabularConfig.model_validate(options))
    for generator, label in ((conditional, "cvae"), (other, "vae")):
        rng = np.random.default_rng(3)
        assert list(generator.generate(5, rng=rng, context=context(labelled))) == [], "nothing before there are weights"
        assert not generator.is_ready(labelled[:5])
        checkpoint = generator.train(labelled, rng=rng, context=context(labelled))
        assert generator.is_improvement(checkpoint, None, labelled, context=context(labelled))[0]
        found = list(generator.generate(5, rng=rng, context=context(labelled, checkpoint=checkpoint)))
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
                context=context(labelled, checkpoint=conditional.train(labelled, rng=np.random.default_rng(1), context=context(labelled))),
            )
        )


def test_the_screen_says_what_is_wrong() -> None:
    screen = LocalEnvironment(LocalEnvironmentConfig.model_validate({"target": TARGET}))
    assert screen.judge(Candidate(prototype("diamond")), SPACE).reason == "C has 4 bonds, wanted 3"
    assert screen.judge(Candidate(prototype("graphite")), SPACE).reason == "a net of 2 dimensions, wanted 3"
    assert "elements" in screen.judge(Candidate(prototype("boron_nitride")), SPACE).reason
    flat = LocalEnvironment(LocalEnvironmentConfig.model_validate({"target": TARGET, "dimension": 2}))
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
        parts = list(bootstrap(60, environment, limits, Recipe(restarts=4, volume=(4.5, 10.0)), np.random.default_rng(3)))
        assert sum(int(part.is_valid.sum()) for part in parts) >= 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TargetConfig(prototypes=("graphene",)), "no target is called graphene"),
        (lambda: TargetConfig(), "expected a target"),
        (lambda: TargetConfig(prototypes=("graphite", "boron_nitride")).environment(), "the same elements"),
        (lambda: TargetConfig(prototypes=("graphite",), bonds={"C-Si": 2.0}).environment(), "expected two elements of the target"),
        (lambda: TargetConfig(prototypes=("graphite", "diamond")).environment(), "have \\[3, 4\\] bonds"),
        (lambda: TargetConfig(files=(Path("missing.cif"),)).environment(), "cannot read the target"),
        (lambda: SitesConfig(sites=(3, 9)), "expected from 1 to 8"),
        (lambda: SitesConfig(formula={"Si": 1}).limits(GRAPHITE), "expected the elements of the target"),
        (lambda: SitesConfig(given=((227, (7,)),)).limits(GRAPHITE), "cannot have 3 bonds"),
        (lambda: SitesConfig(given=((194, (99,)),)).limits(GRAPHITE), "no Wyckoff position 99"),
        (lambda: from_row([194.0] * 7 + [-1.0] * 32, CARBON), "no Wyckoff site"),
        (lambda: from_row([194.0] * 5, CARBON), "expected 39 columns"),
        (lambda: to_row(TabularCrystal(1, (5.0,) * 6, (0,) * 9, ((0.1, 0.2, 0.3),) * 9, (CARBON,) * 9)), "at most 8 Wyckoff sites"),
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
        RandomEnvironmentConfig(target=TargetConfig.model_validate(TARGET), sites=config, refine=RefineConfig(restarts=4))
    )
    for crystal, proposal in generator.generate(1, rng=np.random.default_rng(0), context=context()):
        assert proposal.condition["space_group"] == 229
        assert len(crystal) == len(decode(random_table((229, ((0, CARBON), (0, CARBON))), (8.0, 9.0), np.random.default_rng(0))))


def test_models_refuse_weights_of_another_kind() -> None:
    from campaign.types import Checkpoint

    with pytest.raises(InputError, match="expected weights of kind tabular_vae"):
        from_checkpoint(Checkpoint(tensors={}))
    assert issubclass(TabularVAE, torch.nn.Module)


def test_variables_are_those_of_the_symmetry() -> None:
    graphite = encode(prototype("graphite"))
    assert variables_of(graphite).tolist() == pytest.approx([2.46, 6.70], abs=1e-6)


@pytest.fixture(scope="module")
def carbon(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """Random frameworks, labelled by REBO; then the conditional VAE is trained on them, proposes, and its proposals are labelled."""
    folder = tmp_path_factory.mktemp("carbon")
    learning = {"epochs": 10, "hidden": 64, "latent": 8, "components": 3, "descriptions": 5, "best": 1.0}
    environment = {"target": TARGET, "sites": {"atoms": [4, 40], "sites": [1, 3]}, "refine": {"restarts": 1}}
    changes = {
        "space": {"elements": ["C"], "max_fraction": 1.0},
        "budget": {"labels": 60, "rounds": 2},
        "generators": [
            {"use": "random_environment", "count": 16, "params": environment},
            {
                "use": "cvae",
                "count": 10,
                "params": {**environment, "conditions": "data", "least_labels": 10, "training": learning, "latent": {"steps": 10}},
            },
        ],
        "acquisition": {"use": "all", "initial_labels": 40, "batch_size": 40},
        "screens": {"min_distance": 1.1, "volume_per_atom": [4, 40], "extra": [{"use": "local_environment", "params": {"target": TARGET}}]},
        "oracles": [{"use": "lammps", "params": {"potential": "CH.rebo", "residual_pressure": 5.0, "residual_force": 0.5}}],
        "failure_policy": {"not_converged": {"retries": 0}},
    }
    loaded = configs.validate(merged(SMALL, changes), folder=folder, source=folder / "carbon.yaml")
    campaign = Campaign(folder / "campaign", loaded)
    campaign.run()
    return campaign


def test_a_campaign_finds_frameworks_and_learns_from_them(carbon: Campaign) -> None:
    state = carbon.state()
    makers = {event.generator for record in state.candidates.values() for event, _ in record.proposals}
    assert makers == {"random_environment", "cvae"}
    labelled = {event.generator for candidate, _ in state.labels for event, _ in state.candidates[candidate].proposals}
    assert labelled == makers
    nets = [str(row.condition["net"]) for record in state.candidates.values() for _, row in record.proposals]
    assert len(set(nets)) == len(nets), "each net is proposed once"


def test_nets_are_ranked_counted_and_named(carbon: Campaign, tmp_path: Path) -> None:
    from ase.db import connect

    found, counts = nets_of(carbon.folder)
    energies = [net.energy for net in found]
    assert energies == sorted(energies)
    assert counts["labelled"] >= counts["with the target's bonds after relaxation"] >= counts["unique"] == len(found) > 0
    assert counts["unique, within 0.55 eV/atom"] == sum(energy <= 0.55 for energy in energies)
    with connect(tmp_path / "known.db") as known:
        known.write(found[0].crystal.atoms, topology="found")
        known.write(prototype("diamond").atoms, topology="dia")
    named, counts = nets_of(carbon.folder, tmp_path / "known.db")
    assert [net.name for net in named].count("found") == 1
    assert counts["of the 1 known nets"] == 1, "diamond has not the target's bonds"
    told = CliRunner().invoke(app, ["nets", str(carbon.folder), "--known", str(tmp_path / "known.db"), "--most", "3"])
    assert told.exit_code == 0, told.output
    assert "found" in told.output
    with pytest.raises(InputError, match="expected an ASE database"):
        nets_of(carbon.folder, tmp_path / "known.cif")


FAKE_JULIA = """#!{python}
import sys
from ase.io import read
assert sys.argv[1:3] == ["--startup-file=no", "-e"] and "determine_topology" in sys.argv[3]
if {broken}:
    sys.exit("ERROR: ArgumentError: Package CrystalNets not found")
for path in sys.argv[4:]:
    print(path.rpartition("/")[2], "dia" if len(read(path)) == {diamond} else "", sep="\\t")
"""


@pytest.mark.parametrize("broken", [False, True])
def test_names_of_crystal_nets_come_where_a_julia_has_it(
    broken: bool, carbon: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stand-in for Julia: what is asked of it, and what is made of its answer. The real one cannot be installed in every place."""
    monkeypatch.setenv("PATH", str(tmp_path))
    crystals = [prototype("diamond"), prototype("graphite")]
    assert crystal_nets.names(crystals) == ["", ""], "no Julia"
    julia = tmp_path / "julia"
    julia.write_text(FAKE_JULIA.format(python=sys.executable, broken=broken, diamond=len(crystals[0])))
    julia.chmod(0o755)
    assert crystal_nets.names(crystals) == (["", ""] if broken else ["dia", ""])
    assert ("CrystalNets not found" in caplog.text) == broken
    told = CliRunner().invoke(app, ["nets", str(carbon.folder), "--most", "3"])
    assert told.exit_code == 0, told.output


def test_the_command_trains_on_known_crystals(tmp_path: Path) -> None:
    from ase.io import write

    crystals = [item.candidate.crystal for item in labelled_crystals(12)]
    write(tmp_path / "known.extxyz", [crystal.atoms for crystal in crystals])
    target = tmp_path / "carbon.safetensors"
    arguments = [
        "train",
        "cvae",
        str(tmp_path / "known.extxyz"),
        str(target),
        "--set",
        "target={prototypes: [graphite], bonds: {C-C: 1.872}}",
        "--set",
        "training={epochs: 2, descriptions: 4, subgroups: 2}",
    ]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    model, tables = from_checkpoint(checkpoint_from_bytes(target.read_bytes()))
    assert model.is_conditional
    assert len(tables) == 12
    bad = CliRunner().invoke(app, [*arguments, "--set", "target.bonds=C-C"])
    assert bad.exit_code == 2
    assert "target.bonds" in bad.output
    with pytest.raises(InputError, match="there is no"):
        read_crystals(tmp_path / "missing.db")
