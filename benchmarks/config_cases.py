"""Situations of configs: text, numbers and names as people write them."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.input_cases import CONFIG, Case, config

_GENERATOR = next(line for line in CONFIG.splitlines() if line.startswith("generators"))


def cases() -> Iterator[Case]:
    yield from _texts()
    yield from _spaces()
    yield from _numbers()
    yield from _names()


def _texts() -> Iterator[Case]:
    yield config("plain", CONFIG)
    yield config("with a byte order mark", "\ufeff" + CONFIG)
    yield config("Windows' line ends", CONFIG.replace("\n", "\r\n"))
    yield config(
        "Latin-1", ("# 20 °C\n" + CONFIG).encode("latin-1"), ("case.yaml", "line 1", "UTF-8")
    )
    yield config("UTF-16", CONFIG.encode("utf-16"), ("case.yaml", "UTF-8"))
    yield config("empty", "", ("case.yaml",))
    yield config("comments alone", "# nothing\n", ("case.yaml",))
    yield config("a list", "- a\n- b\n", ("case.yaml",))
    yield config("a word", "campaign", ("case.yaml",))
    yield config("two documents", CONFIG + "---\n" + CONFIG, ("case.yaml",))
    yield config(
        "tabs",
        CONFIG.replace("space: {elements: [Ni, Fe]}", "space:\n\telements: [Ni, Fe]"),
        ("case.yaml", "line"),
    )
    yield config("a key twice", CONFIG + "seed: 2\n", ("case.yaml", "seed"))
    yield config(
        "a key twice within", ("{labels: 4}", "{labels: 4, labels: 5}"), ("case.yaml", "labels")
    )
    yield config("a bracket that does not close", ("[Ni, Fe]}", "[Ni, Fe"), ("case.yaml", "line"))
    yield config(
        "a tag of Python",
        ("seed: 1", "seed: !!python/object/apply:os.system ['true']"),
        ("case.yaml",),
    )
    yield config("an unknown tag", ("seed: 1", "seed: !secret 3"), ("case.yaml",))
    yield config("an alias that is nowhere", ("seed: 1", "seed: *one"), ("case.yaml",))
    laughs = "a0: &a0 [x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    yield config("aliases of aliases", laughs + CONFIG, ("case.yaml",))
    yield config("an alias of itself", ("seed: 1", "seed: &s [*s]"), ("case.yaml",))
    yield config("deep brackets", "name: " + "[" * 1000 + "]" * 1000, ("case.yaml",))
    yield config("a number as key", CONFIG + "3: x\n", ("case.yaml", "3"))
    yield config("nothing as key", CONFIG + "~: x\n", ("case.yaml",))
    yield config("a list as key", CONFIG + "? [a, b]\n: x\n", ("case.yaml",))
    yield config("a NUL byte", CONFIG.encode() + b"\x00", ("case.yaml",))
    yield config("a bell", CONFIG + "# \x07\n", ("case.yaml",))
    yield config("a key of another name", CONFIG + "sede: 2\n", ("case.yaml", "sede", "seed"))


def _spaces() -> Iterator[Case]:
    for text, words in (
        ("[]", ("elements",)),
        ("[Ni]", None),
        ("Ni", ("elements",)),
        ("[Ni, Ni]", ("Ni",)),
        ("[Ni, Xx]", ("Xx",)),
        ("[Ni, fe]", ("fe",)),
        ("[[Ni, Fe]]", ("elements",)),
        ("[{Ni: 0.5}, {Fe: 0.5}]", ("elements",)),
        ("[28, 26]", ("elements",)),
        ("[Ni, ~]", ("elements",)),
        ("[Ni, true]", ("elements",)),
        ("[X, Ni]", ("X",)),
        ("[Ni, D]", ("D",)),
        ("[Y, N]", None),
        ("[No, Ni]", None),
        ("{Ni: 1}", ("elements",)),
    ):
        yield config(
            f"elements: {text}",
            ("[Ni, Fe]", text),
            ("case.yaml", *words) if words is not None else None,
        )
    for text, words in (
        ("max_fraction: {Fe: 0.5}", None),
        ("max_fraction: 0.6", None),
        ("max_fraction: {Cu: 0.5}", ("Cu",)),
        ("max_fraction: 0.3", ("no composition",)),
        ("max_fraction: 1.5", ("max_fraction",)),
        ("max_fraction: -0.1", ("max_fraction",)),
        ("max_fraction: .nan", ("max_fraction",)),
        ("max_fraction: .inf", ("max_fraction",)),
        ("min_fraction: {Ni: 0.6, Fe: 0.6}", ("no composition",)),
        ("min_fraction: {Zn: 0.1}", ("Zn",)),
        ("min_fraction: {Ni: 0.9}, max_fraction: {Ni: 0.2}", ("Ni",)),
        ("max_fraction: 50", ("max_fraction",)),
        ("max_fraction: '0,5'", ("max_fraction",)),
    ):
        yield config(
            f"space: {text}",
            ("[Ni, Fe]}", f"[Ni, Fe], {text}}}"),
            ("case.yaml", *words) if words is not None else None,
        )


def _numbers() -> Iterator[Case]:
    for text in ("0", "-4", "4.5", ".nan", ".inf", "1e400", "four", "[4]", "true", "4:30", "0x10x"):
        yield config(
            f"budget of {text} labels",
            ("{labels: 4}", f"{{labels: {text}}}"),
            ("case.yaml", "labels"),
        )
    yield config("no budget", ("budget: {labels: 4}", "budget: {}"), ("case.yaml", "budget"))
    for text in (".nan", ".inf", "-1", "0", "1 h", "1e400"):
        yield config(
            f"wall_time: {text}",
            ("{labels: 4}", f"{{labels: 4, wall_time: {text}}}"),
            ("case.yaml", "wall_time"),
        )
    for text in ("-1", "1.5", ".nan", "a", "~", "1e400"):
        yield config(f"seed: {text}", ("seed: 1", f"seed: {text}"), ("case.yaml", "seed"))
    for text in (".nan", ".inf", "-.inf", "1e400", "low"):
        yield config(
            f"target: {text}",
            ("direction: minimize", f"direction: target, target: {text}"),
            ("case.yaml", "objective"),
        )
    for text in ("[400, 2]", "[.nan, 2]", "[2]", "[2, .inf, 3]", "3"):
        yield config(
            f"volume_per_atom: {text}",
            CONFIG + f"screens: {{volume_per_atom: {text}}}\n",
            ("case.yaml", "volume_per_atom"),
        )
    for text in (".nan", "-1", ".inf", "1e400"):
        yield config(
            f"min_distance: {text}",
            CONFIG + f"screens: {{min_distance: {text}}}\n",
            ("case.yaml", "min_distance"),
        )
    for text in ("[3, -3]", "[.nan, 0]", "[0]", "-3"):
        sanity = (
            "{use: lennard_jones}",
            f"{{use: lennard_jones, sanity: {{energy_per_atom: {text}}}}}",
        )
        yield config(f"sanity: {text}", sanity, ("case.yaml", "sanity"))
    yield config(
        "sanity of what is not measured",
        ("{use: lennard_jones}", "{use: lennard_jones, sanity: {hardness: [0, 3]}}"),
        ("case.yaml", "hardness"),
    )
    for key, text in (
        ("wall_limit", "0"),
        ("wall_limit", ".nan"),
        ("workers", "0"),
        ("workers", "1.5"),
        ("memory", "-1"),
        ("cpus", "-1"),
        ("cpus", ".inf"),
    ):
        yield config(
            f"{key}: {text}",
            ("{use: lennard_jones}", f"{{use: lennard_jones, {key}: {text}}}"),
            ("case.yaml", key),
        )
    for key, text in (
        ("batch_size", "0"),
        ("initial_labels", "-1"),
        ("batch_size", "2.5"),
        ("batch_size", "true"),
    ):
        old = "initial_labels: 2" if key == "initial_labels" else "batch_size: 2"
        yield config(f"{key}: {text}", (old, f"{key}: {text}"), ("case.yaml", key))


def _names() -> Iterator[Case]:
    for text in ("../x", "a/b", "''", "~", "[a]", "'.'", "'a\\0b'"):
        yield config(f"name: {text}", ("name: case", f"name: {text}"), ("case.yaml", "name"))
    yield config(
        "an oracle of another name",
        ("lennard_jones", "lennard_jone"),
        ("case.yaml", "lennard_jone", "lennard_jones"),
    )
    yield config(
        "a module that is nowhere", ("lennard_jones", '"nowhere:Oracle"'), ("case.yaml", "nowhere")
    )
    yield config(
        "a class that is nowhere", ("lennard_jones", '"json:Oracle"'), ("case.yaml", "Oracle")
    )
    yield config("a path as module", ("lennard_jones", '"../oracle.py:Oracle"'), ("case.yaml",))
    yield config(
        "a quantity that nobody measures",
        ("energy_per_atom", "hardness"),
        ("case.yaml", "hardness"),
    )
    yield config(
        "a direction that is none", ("minimize", "minimise"), ("case.yaml", "minimise", "minimize")
    )
    yield config(
        "a parameter of another name",
        ("{use: lennard_jones}", "{use: lennard_jones, params: {epsilom: 1}}"),
        ("case.yaml", "epsilom", "epsilon"),
    )
    yield config(
        "a parameter without value",
        ("{use: lennard_jones}", "{use: lennard_jones, params: {epsilon: }}"),
        ("case.yaml", "epsilon"),
    )
    yield config(
        "two oracles of one name",
        ("[{use: lennard_jones}]", "[{use: lennard_jones}, {use: lennard_jones}]"),
        ("case.yaml", "lennard_jones"),
    )
    yield config(
        "no oracle", ("oracles: [{use: lennard_jones}]", "oracles: []"), ("case.yaml", "oracle")
    )
    yield config(
        "no generator and no pool", (_GENERATOR, "generators: []"), ("case.yaml", "generators")
    )
    pool = (_GENERATOR, "candidate_pools: [{path: missing.extxyz}]")
    yield config("a pool that is not there is found when it is read", pool)
    yield config(
        "a pool with columns and no oracle",
        (_GENERATOR, "candidate_pools: [{path: p.csv, columns: {energy_per_atom: E}}]"),
        ("case.yaml", "oracle"),
    )
    yield config(
        "a potential that is not there",
        ("{use: lennard_jones}", "{use: lammps, params: {potential: {file: gone.eam.alloy}}}"),
        ("case.yaml", "gone.eam.alloy"),
    )
    yield config(
        "a potential by name", ("lennard_jones", "lammps, params: {potential: wu_lee_su_2017}")
    )
    unknown = CONFIG.replace("[Ni, Fe]", "[Ni, Xe]").replace(
        "lennard_jones", "lammps, params: {potential: wu_lee_su_2017}"
    )
    yield config("a potential that lacks an element", unknown, ("case.yaml", "Xe"))
    yield config(
        "constraints on what nobody measures",
        CONFIG + "constraints: [{quantity: density, at_least: 3}]\n",
        ("case.yaml", "density"),
    )
    yield config(
        "constraints the wrong way round",
        CONFIG + "constraints: [{quantity: energy_per_atom, at_least: 3, at_most: 1}]\n",
        ("case.yaml", "constraints"),
    )
