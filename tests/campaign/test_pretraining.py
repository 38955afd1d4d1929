"""``oreloop train``: any generator that learns, ours or a user's, from files of crystals or a
campaign, to weights that it can use.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.io import write
from typer.testing import CliRunner, Result

from campaign import plugins
from campaign.checkpoints import checkpoint_from_bytes
from campaign.cli import app
from campaign.protocols import GenerationContext, PluginSpec
from campaign.testing.bench import ELEMENTS, alloys, labelled_of
from campaign.types import Crystal, Objective, SearchSpace

OWN = '''
import numpy as np
from pathlib import Path
from oreloop import Checkpoint

class Plain:
    """Learns how many crystals there are, and the mean of their labels."""
    def generate(self, n, *, rng, context): return iter(())
    def train(self, labelled, *, rng, context):
        values = [value for item in labelled for value in item.values.values()]
        tensors = {"n": np.array(len(labelled)), "mean": np.array(np.mean(values) if values else np.nan), "drawn": rng.random(2)}
        return Checkpoint(tensors=tensors, facts={"elements": " ".join(context.space.elements), "wanted": context.objective.quantity})
    def is_improvement(self, new, old, labelled, *, context): return True, {}

class Long(Plain):
    """Four steps; the process ends after the second where a file says so."""
    def __init__(self, rate=1.0): self.rate = rate
    def train(self, labelled, *, rng, context, progress=None, keep=None, begun=None):
        done = 0 if begun is None else int(begun.tensors["done"])
        for step in range(done + 1, 5):
            progress(step, 4, f"at {step}")
            keep(Checkpoint(tensors={"done": np.array(step)}))
            if step == 2 and Path("stop").exists(): raise KeyboardInterrupt
        return Checkpoint(tensors={"began": np.array(done), "rate": np.array(self.rate)})

class Static:
    def generate(self, n, *, rng, context): return iter(())

class Wrong(Plain):
    def train(self, labelled, *, rng, context): return {"n": 1}

class Failing(Plain):
    def train(self, labelled, *, rng, context): return 1 / 0
'''  # noqa: E501
LABELLED = labelled_of(alloys(ELEMENTS, 14), ELEMENTS)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's generators, crystals without labels, and the same with energies."""
    (tmp_path / "own_pretrained.py").write_text(OWN)
    images = []
    for item in LABELLED:
        atoms = item.candidate.crystal.atoms
        atoms.info["energy_per_atom"] = item.values["energy_per_atom"]
        images.append(atoms)
    write(tmp_path / "energies.extxyz", images, format="extxyz")
    (tmp_path / "crystals").mkdir()
    for i, atoms in enumerate(images[:3]):
        write(tmp_path / "crystals" / f"{i}.cif", atoms)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def train(*words: str) -> Result:
    return CliRunner().invoke(app, ["train", *words])


def made(path: str) -> dict[str, np.ndarray]:
    return dict(checkpoint_from_bytes(Path(path).read_bytes()).tensors)


def test_a_users_own_generator_learns_from_labelled_crystals(home: Path) -> None:
    words = ("own_pretrained:Plain", "energies.extxyz")
    done = train(*words, "one.safetensors", "--quantity", "energy_per_atom")
    assert done.exit_code == 0, done.output
    assert "trained on 14 crystals" in done.output
    found = made("one.safetensors")
    assert found["n"] == 14
    assert float(found["mean"]) == pytest.approx(
        np.mean([item.values["energy_per_atom"] for item in LABELLED])
    )
    assert (
        checkpoint_from_bytes(Path("one.safetensors").read_bytes()).facts["elements"] == "Cr Fe Ni"
    )
    train(*words, "again.safetensors", "--quantity", "energy_per_atom")
    train(*words, "other.safetensors", "--quantity", "energy_per_atom", "--seed", "1")
    np.testing.assert_array_equal(found["drawn"], made("again.safetensors")["drawn"])
    assert (found["drawn"] != made("other.safetensors")["drawn"]).all()


def test_crystals_without_labels_are_learned(home: Path) -> None:
    done = train(
        "own_pretrained:Plain", "crystals", "plain.safetensors", "--elements", "Al,Cr,Fe,Ni"
    )
    assert done.exit_code == 0, done.output
    assert made("plain.safetensors")["n"] == 3
    assert np.isnan(made("plain.safetensors")["mean"])
    assert (
        checkpoint_from_bytes(Path("plain.safetensors").read_bytes()).facts["elements"]
        == "Al Cr Fe Ni"
    )


def test_training_goes_on_where_it_was_interrupted(home: Path) -> None:
    words = ("own_pretrained:Long", "crystals", "long.safetensors", "--set", "rate=0.5")
    (home / "stop").touch()
    assert train(*words).exit_code == 130
    assert not Path("long.safetensors").exists()
    (home / "stop").unlink()
    other = train(*words[:2], "long.safetensors", "--set", "rate=0.25")
    assert other.exit_code == 0, other.output
    assert made("long.safetensors") == {"began": 0, "rate": 0.25}, "other settings begin anew"
    done = train(*words)
    assert done.exit_code == 0, done.output
    assert made("long.safetensors") == {"began": 2, "rate": 0.5}
    assert not list(home.glob(".*.part"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("own_pretrained:Plain", "crystals", "x.pt"), "should end in .safetensors"),
        (
            ("own_pretrained:Static", "crystals", "x.safetensors"),
            "the generator own_pretrained:Static does not learn",
        ),
        (
            ("random_alloy", "crystals", "x.safetensors"),
            "the generator random_alloy does not learn",
        ),
        (
            ("own_pretrained:Wrong", "crystals", "x.safetensors"),
            "gave dict by train, expected a Checkpoint",
        ),
        (
            ("own_pretrained:Failing", "crystals", "x.safetensors"),
            "code of your own failed: ZeroDivisionError",
        ),
        (("pcdvaee", "crystals", "x.safetensors"), "there is no generator called 'pcdvaee'"),
        (("pcdvae", "nowhere", "x.safetensors"), "there is no nowhere"),
        (
            ("pcdvae", "crystals", "x.safetensors"),
            "at least two labelled crystals to train on, got 0",
        ),
        (
            ("pcdvae", "crystals", "x.safetensors", "--quantity", "hardness"),
            "the file holds no labels",
        ),
        (
            ("pcdvae", "crystals", "x.safetensors", "--set", "training.epoch=1"),
            "training.epoch: unknown key",
        ),
        (
            ("pcdvae", "crystals", "x.safetensors", "--subset", "best"),
            "expected --subset all or random or improved, got best",
        ),
    ],
)
def test_what_is_wrong_is_told(words: tuple[str, ...], told: str, home: Path) -> None:
    done = train(*words)
    assert done.exit_code == 2, done.output
    assert told in " ".join(done.output.split())
    assert not list(home.glob("*.safetensors"))


def test_weights_of_a_network_are_what_its_setting_takes(home: Path) -> None:
    small = (
        "training.epochs=2",
        "training.batch_size=8",
        "sampler={use: focused, steps: 4, ancestral: 2}",
        "optimisation.share=0",
    )
    settings = [word for setting in small for word in ("--set", setting)]
    done = train(
        "pcdvae", "energies.extxyz", "net.safetensors", "--quantity", "energy_per_atom", *settings
    )
    assert done.exit_code == 0, done.output
    params = {
        "weights": "net.safetensors",
        "sampler": {"use": "focused", "steps": 4, "ancestral": 2},
    }
    generator = plugins.build(
        PluginSpec(
            group="generators",
            use="pcdvae",
            params=params,
            module_folder=str(home),
            elements=ELEMENTS,
        )
    )
    context = GenerationContext(
        space=SearchSpace(ELEMENTS), objective=Objective("energy_per_atom", "minimize")
    )
    assert len(list(generator.generate(3, rng=np.random.default_rng(0), context=context))) == 3


def test_crystals_of_an_environment_teach_a_tabular_generator(home: Path) -> None:
    lattice = np.array([[2.46, 0, 0], [-1.23, 2.13042, 0], [0, 0, 6.7]])
    sites = np.array([[0, 0, 0.25], [0, 0, 0.75], [1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]])
    write(home / "graphite.cif", Crystal(lattice, sites, np.full(4, 6, dtype=np.uint8)).atoms)
    settings = (
        "target={prototypes: [graphite], bonds: {C-C: 1.872}}",
        "training={epochs: 2, descriptions: 4, hidden: 16, latent: 4, components: 2}",
    )
    done = train(
        "cvae", "graphite.cif", "cvae.safetensors", "--set", settings[0], "--set", settings[1]
    )
    assert done.exit_code == 0, done.output
    assert "trained on 1 crystals" in done.output
    other = train(
        "tabular_vae",
        "energies.extxyz",
        "other.safetensors",
        "--set",
        settings[0],
        "--set",
        settings[1],
    )
    assert other.exit_code == 2
    assert "none of 14 crystals has the target's elements and bonds" in " ".join(
        other.output.split()
    )
