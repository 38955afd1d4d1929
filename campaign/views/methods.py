"""A paragraph for a paper's methods section, and what to cite, from what a campaign used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from campaign.config.loaded import LoadedConfig
from campaign.views.progress import duration
from campaign.views.view import View

_ALWAYS = ("botorch", "pymatgen", "ase")
CITATIONS: Mapping[str, str] = {
    "botorch": "Balandat et al., Advances in Neural Information Processing Systems 33 (2020)",
    "pymatgen": "Ong et al., Computational Materials Science 68, 314 (2013), "
    "doi:10.1016/j.commatsci.2012.10.028",
    "ase": "Larsen et al., Journal of Physics: Condensed Matter 29, 273002 (2017), "
    "doi:10.1088/1361-648X/aa680e",
    "ray": "Moritz et al., 13th USENIX Symposium on Operating Systems Design and "
    "Implementation (2018)",
    "lammps": "Thompson et al., Computer Physics Communications 271, 108171 (2022), "
    "doi:10.1016/j.cpc.2021.108171",
    "mace": "Batatia et al., Advances in Neural Information Processing Systems 35 (2022)",
    "gpaw": "Mortensen et al., The Journal of Chemical Physics 160, 092503 (2024), "
    "doi:10.1063/5.0182685",
    "vasp": "Kresse and Furthmueller, Physical Review B 54, 11169 (1996), "
    "doi:10.1103/PhysRevB.54.11169",
    "sevennet": "Park et al., Journal of Chemical Theory and Computation 20, 4857 (2024), "
    "doi:10.1021/acs.jctc.4c00190",
    "chgnet": "Deng et al., Nature Machine Intelligence 5, 1031 (2023), "
    "doi:10.1038/s42256-023-00716-3",
    "phonons": "Togo et al., Journal of Physics: Condensed Matter 35, 353001 (2023), "
    "doi:10.1088/1361-648X/acd831",
    "random_crystal": "Fredericks et al., Computer Physics Communications 261, 107810 (2021), "
    "doi:10.1016/j.cpc.2020.107810",
}
"""By the word that a component's name begins with, or a package's name."""


def citations(loaded: LoadedConfig) -> dict[str, str]:
    """By package or component, of those that have one."""
    config = loaded.config
    used = [item.use for item in (*config.oracles, *config.generators)]
    words = [*_ALWAYS, *(["ray"] if config.executor.use == "ray" else [])]
    words += [
        word
        for word in CITATIONS
        if word not in words and any(name.startswith(word) for name in used)
    ]
    return {word: CITATIONS[word] for word in words}


def paragraph(view: View, versions: Mapping[str, str]) -> str:
    """The campaign as a methods section tells it; figures are of the ledger."""
    return " ".join(_sentences(view, versions))


def _sentences(view: View, versions: Mapping[str, str]) -> Iterator[str]:
    config, state = view.config, view.state
    aims = [f"{item.direction} {item.quantity}" for item in config.objectives]
    yield (
        f"An active-learning campaign was run with oreloop {versions['oreloop']} (seed "
        f"{config.seed}) to {' and to '.join(aims)}"
    )
    yield f"of crystals of {', '.join(config.space.elements)}."
    yield f"Candidates were proposed by {_listed([item.label for item in config.generators])}."
    surrogate = f" on the surrogate {config.surrogate.use}" if config.surrogate else ""
    yield (
        f"In each of {len(state.rounds)} rounds the acquisition "
        f"{config.acquisition.use}{surrogate} chose what to label."
    )
    for name, key in view.loaded.fidelity_keys.items():
        labels = [label for label in state.labels.values() if label.oracle == name]
        failed = sum(event.oracle == name for _, _, event in state.failures)
        yield (
            f"The oracle {name} ({key}) gave {len(labels)} labels in "
            f"{duration(sum(label.wall_seconds for label in labels))} of work"
        )
        yield f"({failed} attempts failed)."


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "none"
