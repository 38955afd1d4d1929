"""The kits find what is wrong: a plug-in of a user's with each fault that they look for, and a
right one that passes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from campaign.cli import app
from oreloop import check_embedder, check_generator, check_screen, check_surrogate

GENERATORS = '''
import numpy as np
from oreloop import Checkpoint, Crystal, Proposal
from campaign.crystals.lattice import supercell

class Right:
    """Random orderings of two elements' equal parts; learns the mean label."""
    def symbols(self, space, rng):
        while True:
            chosen = rng.choice(space.elements, 4).tolist()
            if not space.violation(chosen):
                return chosen
    def proposal(self, context, rng):
        return Proposal(parents=tuple(item.candidate.id for item in context.labelled[:1]))
    def generate(self, n, *, rng, context):
        for _ in range(n):
            yield supercell("bcc", (2, 1, 1), self.symbols(context.space, rng)), self.proposal(context, rng)
    def train(self, labelled, *, rng, context):
        values = [item.values["energy_per_atom"] for item in labelled]
        return Checkpoint(tensors={"mean": np.array(float(np.mean(values)) if values else 0.0)}, facts={"kind": "mean"})
    def is_improvement(self, new, old, labelled, *, context):
        return True, {"mean": float(new.tensors["mean"])}

class Unseeded(Right):
    def symbols(self, space, rng): return super().symbols(space, np.random.default_rng())
class TooMany(Right):
    def generate(self, n, *, rng, context): yield from super().generate(n + 1, rng=rng, context=context)
class Endless(Right):
    def generate(self, n, *, rng, context):
        while True: yield from super().generate(n, rng=rng, context=context)
class Outside(Right):
    def symbols(self, space, rng): return ["Al"] * 4
class DeafToBounds(Right):
    def symbols(self, space, rng): return rng.choice(space.elements, 4).tolist()
class Orphan(Right):
    def proposal(self, context, rng): return Proposal(parents=("0123",))
class NeedsALabel(Right):
    def generate(self, n, *, rng, context):
        context.labelled[0]
        yield from super().generate(n, rng=rng, context=context)
class NeedsTwo(Right):
    def generate(self, n, *, rng, context):
        if context.labelled: context.labelled[1]
        yield from super().generate(n, rng=rng, context=context)
class Sorts(Right):
    def generate(self, n, *, rng, context):
        context.labelled.sort(key=lambda item: item.values["energy_per_atom"])
        yield from super().generate(n, rng=rng, context=context)
class Bare(Right):
    def generate(self, n, *, rng, context):
        for crystal, _ in super().generate(n, rng=rng, context=context): yield crystal
class Forgets(Right):
    """What it learned hangs on the object and is not in the bytes."""
    def train(self, labelled, *, rng, context):
        made = super().train(labelled, rng=rng, context=context)
        return Checkpoint(tensors=Tagged(made.tensors), facts=made.facts)
    def symbols(self, space, rng):
        return super().symbols(space, rng)
    def generate(self, n, *, rng, context):
        if context.checkpoint is not None and isinstance(context.checkpoint.tensors, Tagged): rng.random()
        yield from super().generate(n, rng=rng, context=context)
class Tagged(dict): pass
class LearnsByChance(Right):
    def train(self, labelled, *, rng, context): return Checkpoint(tensors={"w": np.random.default_rng().random(3)})
class GateOfOneValue(Right):
    def is_improvement(self, new, old, labelled, *, context): return True
'''  # noqa: E501

SURROGATES = """
import numpy as np, torch
from botorch.models import SingleTaskGP
from oreloop import InputError

class Fitted:
    def __init__(self, owner, x, y): 
        self.owner, self.model = owner, SingleTaskGP(x, y, outcome_transform=owner.transform(y))
        self.model.eval()
    def features(self, candidates): return self.owner.rows(candidates)
    def posterior(self, candidates):
        with torch.no_grad(): return self.model.posterior(self.features(candidates))
    @property
    def hyperparameters(self): return self.owner.told()

class Right:
    fitted = Fitted
    def transform(self, y):
        from botorch.models.transforms import Standardize
        return Standardize(m=1)
    def rows(self, candidates):
        rows = [[float(np.mean(c.crystal.numbers)), c.crystal.volume / len(c.crystal)] for c in candidates]
        return torch.tensor(rows).double().reshape(-1, 2) / 30
    def told(self): return {"kernel": "rbf"}
    def values(self, values): return torch.tensor(np.asarray(values, dtype=float))[:, None]
    def fit(self, candidates, values, *, previous=None):
        if len(candidates) == 0: raise InputError("expected labels, got none")
        if len(candidates) == 1: raise InputError("expected two labels, got one")
        return self.fitted(self, self.rows(candidates), self.values(values))

class NoTransform(Right):
    def transform(self, y): return None
class Unseeded(Right):
    def values(self, values): return super().values(values) + 0.1 * torch.tensor(np.random.default_rng().normal(size=(len(values), 1)))
class Backward(Right):
    class fitted(Fitted):
        def posterior(self, candidates):
            with torch.no_grad(): return self.model.posterior(self.features(sorted(candidates, key=lambda c: c.id)))
class NotANumber(Right):
    class fitted(Fitted):
        def posterior(self, candidates):
            class Found:
                mean = variance = torch.full((len(candidates), 1), torch.nan)
            return Found
class Flat(Right):
    class fitted(Fitted):
        def posterior(self, candidates):
            found = super().posterior(candidates)
            class Found:
                mean, variance = found.mean[:, 0], found.variance[:, 0]
            return Found
class FitsNothing(Right):
    def fit(self, candidates, values, *, previous=None):
        if len(candidates) == 0: raise ZeroDivisionError
        return super().fit(candidates, values, previous=previous)
class FailsOnOne(Right):
    def fit(self, candidates, values, *, previous=None):
        if len(candidates) == 1: raise ZeroDivisionError
        return super().fit(candidates, values, previous=previous)
class CannotBeRecorded(Right):
    def told(self): return {"noise": torch.tensor(1.0)}
class FailsOnPrevious(Right):
    def fit(self, candidates, values, *, previous=None):
        if previous: previous["noise"]
        return super().fit(candidates, values, previous=previous)
class DeafToNoise(Right):
    knows_noise = True
    def fit(self, candidates, values, *, noise=None, previous=None): return super().fit(candidates, values, previous=previous)
class Scales(Right):
    def fit(self, candidates, values, *, previous=None):
        values *= 0.5
        return super().fit(candidates, values, previous=previous)
"""  # noqa: E501

EMBEDDERS = """
import numpy as np
from pydantic import BaseModel

class Config(BaseModel):
    power: float = 1.0

class Right:
    Config = Config
    is_worth_keeping = True
    def __init__(self, config): self.config = config
    @property
    def version(self): return f"own-{self.config.power}"
    def columns(self, elements): return ["volume", "mean"]
    def row(self, crystal): return [(crystal.volume / len(crystal)) ** self.config.power, float(np.mean(crystal.numbers))]
    def embed(self, crystals, elements): return np.array([self.row(c) for c in crystals]).reshape(len(crystals), 2)

class TooFewNames(Right):
    def columns(self, elements): return ["volume"]
class NamesTwice(Right):
    def columns(self, elements): return ["volume", "volume"]
class DeafVersion(Right):
    version = "own"
class NewVersion(Right):
    @property
    def version(self): return f"own-{id(self)}-{np.random.default_rng().random()}"
class ByPosition(Right):
    def row(self, crystal): return [crystal.volume / len(crystal), float(crystal.numbers[0])]
class Relative(Right):
    def embed(self, crystals, elements):
        rows = super().embed(crystals, elements)
        return rows - rows.mean(0) if len(rows) else rows
class Chance(Right):
    def row(self, crystal): return [crystal.volume, np.random.default_rng().random()]
class Blind(Right):
    def row(self, crystal): return [1.0, 2.0]
class FailsOnNone(Right):
    def embed(self, crystals, elements): return np.stack([self.row(c) for c in crystals])
class NoVersion:
    is_worth_keeping = False
    def columns(self, elements): return ["volume"]
    def embed(self, crystals, elements): return np.array([[c.volume / len(c)] for c in crystals]).reshape(-1, 1)
"""  # noqa: E501

SCREENS = """
import numpy as np
from oreloop import Verdict

class Right:
    def value(self, crystal): return crystal.volume / len(crystal)
    def judge(self, candidate, space):
        if self.value(candidate.crystal) > 20: return Verdict(False, "own", "too large")
        return Verdict(True, "")

class NoReason(Right):
    def judge(self, candidate, space): return Verdict(super().judge(candidate, space).accepted, "own", "")
class NoVerdict(Right):
    def judge(self, candidate, space): return super().judge(candidate, space).accepted
class Chance(Right):
    def __init__(self): self.rng = np.random.default_rng()
    def value(self, crystal): return 40 * self.rng.random()
class Remembers(Right):
    def __init__(self): self.seen = 0
    def judge(self, candidate, space):
        self.seen += 1
        return Verdict(False, "own", "enough seen") if self.seen > 3 else Verdict(True, "")
class ByPosition(Right):
    def value(self, crystal): return 21 * (crystal.numbers[0] == crystal.numbers.max())
class Changes(Right):
    def judge(self, candidate, space):
        space.minimum["Ni"] = 0.5
        return super().judge(candidate, space)
class Raises(Right):
    def value(self, crystal): raise KeyError("x")
"""  # noqa: E501

KITS: dict[str, tuple[str, Callable[..., object]]] = {
    "generator": (GENERATORS, check_generator),
    "surrogate": (SURROGATES, check_surrogate),
    "embedder": (EMBEDDERS, check_embedder),
    "screen": (SCREENS, check_screen),
}
FAULTS = [
    ("generator", "Unseeded", "same seed, same crystals: "),
    ("generator", "TooMany", "no more than asked for: asked for 1, it gave 2"),
    ("generator", "Endless", "no more than asked for: asked for 1, it gave at least"),
    ("generator", "Outside", "inside the space: Al4 holds Al"),
    ("generator", "DeafToBounds", "inside a narrower space: "),
    ("generator", "Orphan", "parents exist: '0123' is no labelled candidate"),
    ("generator", "NeedsALabel", "no label: raised IndexError"),
    ("generator", "NeedsTwo", "one label: raised IndexError"),
    ("generator", "Sorts", "context unchanged: generate changes its context"),
    ("generator", "Bare", "proposes crystals: gave Crystal, expected pairs"),
    (
        "generator",
        "Forgets",
        "checkpoint as bytes: what was read from bytes proposes other crystals",
    ),
    ("generator", "LearnsByChance", "same seed, same checkpoint: "),
    ("generator", "GateOfOneValue", "the gate: is_improvement gave bool"),
    ("surrogate", "NoTransform", "another unit: "),
    ("surrogate", "Unseeded", "same seed, same fit: "),
    ("surrogate", "Backward", "row by row: means do not follow"),
    ("surrogate", "NotANumber", "posterior: the posterior's mean is not finite"),
    ("surrogate", "Flat", "posterior: the posterior's mean of 6 candidates is 6, expected 6 x 1"),
    ("surrogate", "FitsNothing", "no label: raised ZeroDivisionError"),
    ("surrogate", "FailsOnOne", "one label: raised ZeroDivisionError"),
    (
        "surrogate",
        "CannotBeRecorded",
        "hyperparameters: hyperparameters are nothing that can be recorded",
    ),
    ("surrogate", "FailsOnPrevious", "hyperparameters: raised KeyError"),
    ("surrogate", "DeafToNoise", "stated noise: a label that is wrong by 20"),
    ("surrogate", "Scales", "labels unchanged: fit changes the values"),
    ("embedder", "TooFewNames", "a name for each column: columns() names 1, rows have 2"),
    ("embedder", "NamesTwice", "a name for each column: two columns are called volume"),
    (
        "embedder",
        "DeafVersion",
        "version and settings: power: 0.8 gives other rows under the same version",
    ),
    ("embedder", "NewVersion", "version: version changes"),
    ("embedder", "ByPosition", "order of atoms: "),
    ("embedder", "Relative", "order of crystals: a crystal's row depends on those asked with it"),
    ("embedder", "Chance", "same again: "),
    ("embedder", "Blind", "tells crystals apart: "),
    ("embedder", "FailsOnNone", "no crystals: raised ValueError"),
    ("embedder", "NoVersion", "is an embedder: expected"),
    ("screen", "NoReason", "reasons: own refuses without a reason"),
    ("screen", "NoVerdict", "gives verdicts: judge gave bool"),
    ("screen", "Chance", "same again: "),
    ("screen", "Remembers", "one by one: "),
    ("screen", "ByPosition", "order of atoms: "),
    ("screen", "Changes", "candidate unchanged: judge changes the search space"),
    ("screen", "Raises", "gives verdicts: raised KeyError: 'x'"),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's module for each port."""
    for port, (text, _) in KITS.items():
        (tmp_path / f"own_{port}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("port", KITS)
def test_a_right_plugin_passes(port: str, home: Path) -> None:
    KITS[port][1](f"own_{port}:Right", folder=home)


@pytest.mark.parametrize(("port", "name", "told"), FAULTS)
def test_a_fault_is_found(port: str, name: str, told: str, home: Path) -> None:
    with pytest.raises(AssertionError) as failed:
        KITS[port][1](f"own_{port}:{name}", folder=home)
    assert told in str(failed.value)


@pytest.mark.parametrize("port", KITS)
def test_the_command_tells_findings_and_ends_by_them(port: str, home: Path) -> None:
    wrong = {
        "generator": "Outside",
        "surrogate": "NotANumber",
        "embedder": "TooFewNames",
        "screen": "NoReason",
    }[port]
    good = CliRunner().invoke(app, [port, "check", f"own_{port}:Right", "--elements", "Ni,Fe"])
    assert good.exit_code == 0, good.output
    assert "passed" in good.output
    bad = CliRunner().invoke(
        app, [port, "check", f"own_{port}:{wrong}", "--elements", "Ni", "--elements", "Fe"]
    )
    assert bad.exit_code == 1
    assert "failed" in bad.output
    unknown = CliRunner().invoke(app, [port, "check", "random_alloi"])
    assert unknown.exit_code == 2


def test_settings_reach_the_plugin(home: Path) -> None:
    found = CliRunner().invoke(app, ["embedder", "check", "own_embedder:Right", "--set", "power=2"])
    assert "own-2.0" in found.output
    wrong = CliRunner().invoke(app, ["embedder", "check", "own_embedder:Right", "--set", "power"])
    assert wrong.exit_code == 2
    assert "expected a setting such as training.epochs=5, got 'power'" in wrong.output
