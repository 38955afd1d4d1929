"""Tables and figures of P-CDVAE's paper beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

from benchmarks.paper_lines import NOT_KEPT, Line, average, document, drawing, figure
from benchmarks.record import Row

STEPS = (200, 500, 1000, 1500, 2500)
START = 181.7
"""Mean bulk modulus of the paper's 327 starts (GPa)."""
PAPER_TABLE_3 = {
    "Random": {
        200: (181.4, 193.1, 237),
        500: (181.7, 193.3, 225),
        1000: (181.1, 193.8, 178),
        1500: (182.8, 193.8, 129),
        2500: (185.8, 193.3, 45),
    },
    "LS": {
        200: (181.7, 192.9, 265),
        500: (182.4, 193.0, 247),
        1000: (185.4, 194.4, 199),
        1500: (189.8, 195.0, 186),
        2500: (193.0, 196.5, 124),
    },
}
"""Mean bulk modulus and that of the best ten (GPa), and correctly decoded structures of 327."""
PERCENTILES = (50, 75, 90, 95, 99)
ORDER = "random order on the ideal parent lattice"
SMALL = "16 atoms as in NiFeCr-Small; minutes of training on two cores"
LARGE = "16 atoms, the paper 54"
STARTS = "16 atoms and 48 starts a seed, the paper 54 atoms and 327 starts"
SUPPLEMENT = "in a supplement that is not at hand"


def alloys() -> Iterator[Line]:
    yield drawing("Fig. 1, workflow", "the configs of NiFeCr are this workflow")
    yield drawing("Fig. 2, training and sampling", "tests compare losses, heads and sampler")
    yield from reconstruction()
    yield from generation()
    yield from optimisation()
    yield Line(
        where="Section 3.2, labels of 1,200 configurations",
        paper=2 * 3600.0,
        ours=round(1200 * average("md_oracle", "compare", "elastic_seconds"), 0),
        why="the paper's potential and elastic constants; they agree with "
        f"{len(document('md_oracle')['rows']['published'])} published labels to "
        f"{figure('md_oracle', 'mean |deviation| from published labels, all 24 (GPa)'):.2g} GPa "
        "on average",
        is_same_size=True,
        differs="54 atoms; one core, machines differ",
        baseline="3 to 4 hours a configuration by density functional theory, in the paper",
        cost=f"{average('md_oracle', 'compare', 'elastic_seconds'):.2g} s a label",
        command="md_oracle",
        higher_is_better=False,
        unit=" s",
    )


def of_models(model: str, part: str, key: str) -> float:
    """Mean over the seeds of P-CDVAE's tables; ``part`` is ``model``, or ``baseline``: random order
    on the ideal parent lattice.
    """
    rows: Sequence[Row] = document("pcdvae_tables")["rows"]["models"]
    return float(mean(row["reconstruction"][part][key] for row in rows if row["model"] == model))


def reconstruction() -> Iterator[Line]:
    carbon = "Table 1, Carbon, focused (190 calls)"
    for what, key, number, higher in (
        ("match rate", "match rate (paper: 0.662)", 0.662, True),
        ("fingerprint distance", "fingerprint distance (paper: 0.2603)", 0.2603, False),
    ):
        yield Line(
            where=f"Table 1, Carbon, {what}",
            paper=number,
            ours=figure("pcdvae_carbon", f"{carbon}: {key}"),
            why="a hundredth of the data; Carbon-24 has not been learned here",
            is_same_size=False,
            differs="55 crystals of our own learned, the paper 6,091 of Carbon-24",
            cost=NOT_KEPT,
            command="pcdvae_carbon",
            higher_is_better=higher,
        )
    decoded = average("pcdvae_samplers", "samplers", "seconds", atoms=16, sampler="focused")
    cost = f"{decoded / 64:.2g} s a crystal decoded; training {NOT_KEPT}"
    for what, key, number, higher, why in (
        ("match rate", "match_rate", 0.300, True, "random order does as well"),
        ("fingerprint distance", "fingerprint_distance", 0.1758, False, "random order does too"),
    ):
        yield Line(
            where=f"Table 1, NiFeCr-Small, {what}",
            paper=number,
            ours=of_models("CDVAE-Random", "model", key),
            why=f"the order of the atoms is not reconstructed: {why}",
            is_same_size=True,
            differs=SMALL,
            baseline=f"{of_models('CDVAE-Random', 'baseline', key):.4g}, {ORDER}",
            cost=cost,
            command="pcdvae_tables",
            higher_is_better=higher,
        )
    for what, number in (("match rate", 0.064), ("fingerprint distance", 0.1358)):
        yield Line(
            where=f"Table 1, NiFeCr-Random, {what}",
            paper=number,
            ours=None,
            why="54 atoms were not learned long enough on two cores; from uniform starts "
            f"{average('pcdvae_samplers', 'samplers', 'phase_fidelity', atoms=54, sampler='focused'):.2f} "  # noqa: E501
            "of their atoms are of the asked phase",
        )
    for model, numbers in {
        "CDVAE-Random": (0.1358, 0.3618, 0.0984),
        "P-CDVAE-Random": (0.1039, 0.3513, 0.0691),
        "P-CDVAE-LS": (0.0823, 0.3521, 0.0560),
    }.items():
        keys = ("fingerprint_distance", "g_distance", "cp_g_distance")
        names = ("fingerprint distance", "G-distance", "CP G-distance")
        whys = (
            "in the paper the phase head lowers it, here it does not: at 16 atoms it goes the "
            "other way",
            "typed: what the order of the atoms adds, which is not reconstructed",
            "at its floor of {:.3f}, which the ideal lattice sets: it proves little about the "
            "network".format(figure("pcdvae_tables", "noise floor of the CP G-distance")),
        )
        for key, name, number, why in zip(keys, names, numbers, whys, strict=True):
            yield Line(
                where=f"Table 2, {model}, {name}",
                paper=number,
                ours=of_models(model, "model", key),
                why=why,
                is_same_size=False,
                differs=LARGE,
                baseline=f"{of_models(model, 'baseline', key):.4g}, {ORDER}",
                cost=cost,
                command="pcdvae_tables",
                higher_is_better=False,
            )
    yield Line(
        where="Section 4.1, CP G-distance, P-CDVAE over CDVAE",
        paper=round(0.0691 / 0.0984, 3),
        ours=figure("pcdvae_tables", "CP G-distance, P-CDVAE over CDVAE"),
        why="both are at the floor here, so the phase head cannot lower it",
        is_same_size=False,
        differs=LARGE,
        baseline=f"{of_models('P-CDVAE-Random', 'baseline', 'cp_g_distance') / of_models('CDVAE-Random', 'baseline', 'cp_g_distance'):.3g}, {ORDER}",  # noqa: E501
        cost=cost,
        command="pcdvae_tables",
        higher_is_better=False,
    )


def generation() -> Iterator[Line]:
    for what in ("valid", "unique"):
        yield Line(
            where=f"Section 4.2 and Fig. SM.1c, 500 materials generated: {what}",
            paper=None,
            ours=figure("pcdvae_tables", f"from the normal prior, P-CDVAE-Random: {what}"),
            why="compositions are in the raw rows; no map is drawn",
            is_same_size=False,
            differs=LARGE,
            cost=NOT_KEPT,
            command="pcdvae_tables",
        )
    yield Line(
        where="Fig. 3, stability by density functional theory: labels of P-CDVAE's crystals",
        paper=None,
        ours=figure("generate_dft", "gpaw, pcdvae: labels"),
        why="none of ours lies on the hull; the paper tells FeNi5 as new",
        is_same_size=False,
        differs="4 atoms, GPAW with spin; the paper 54 atoms",
        baseline=f"{figure('generate_dft', 'gpaw, random_alloy: labels'):.0f} labels of random "
        "alloys, two of them on the hull",
        cost=f"{figure('generate_dft', 'gpaw, pcdvae: median seconds per label') / 60:.0f} min a "
        "label on one core",
        command="generate_dft",
    )


def optimised(
    data: str,
    step: int,
    what: str,
    key: str,
    number: float,
    zero: float | None = None,
    why: str = "",
) -> Line:
    """Of Table 3; where there is a ``zero`` (GPa), how far ours lie above it."""
    plain, held = (
        figure("pcdvae_tables", f"Table 3, P-CDVAE-{data}, {form}, step {step}: {key}")
        - (zero or 0.0)
        for form in ("plain", "held")
    )
    unit = "" if zero is None else " GPa"
    return Line(
        where=f"Table 3, NiFeCr-{data}, step {step}: {what}",
        paper=round(number, 3),
        ours=round(plain, 3),
        why=f"our form that holds the phase: {held:.3g}{unit}{why}",
        is_same_size=False,
        differs=STARTS,
        baseline="1, the starts as they are" if zero is None else "0 GPa, the starts as they are",
        cost=NOT_KEPT,
        command="pcdvae_tables",
        unit=unit,
    )


def optimisation() -> Iterator[Line]:
    for data, numbers in PAPER_TABLE_3.items():
        start = figure("pcdvae_tables", f"Table 3, P-CDVAE-{data}: initial mean B (GPa)")
        for step in STEPS:
            of_all, of_ten, correct = numbers[step]
            yield optimised(
                data, step, "gain in mean bulk modulus", "mean B (GPa)", of_all - START, start
            )
            yield optimised(
                data,
                step,
                "mean of the best ten, above the starts' mean",
                "mean B of the best ten (GPa)",
                of_ten - START,
                start,
                "; of fewer starts the best ten are lower",
            )
            yield optimised(data, step, "correctly decoded", "correct (share)", correct / 327)
    for data in PAPER_TABLE_3:
        for percentile in PERCENTILES:
            plain, held = (
                f"Table A1, P-CDVAE-{data}, {form}: starts above the {percentile}th percentile "
                "(share)"
                for form in ("plain", "held")
            )
            yield Line(
                where=f"Table A1, NiFeCr-{data}: starts above the {percentile}th percentile",
                paper=None,
                ours=figure("pcdvae_tables", plain),
                why=f"our form that holds the phase: {figure('pcdvae_tables', held):.3f}",
                is_same_size=False,
                differs=f"{STARTS}; thresholds of NiFeCr-Random's data for both, the paper takes "
                "the local search's for LS",
                baseline=f"{1 - percentile / 100:.2g} of the data, by what a percentile is",
                cost=NOT_KEPT,
                command="pcdvae_tables",
                absent=SUPPLEMENT,
            )
    best = "bcc bulk modulus"
    yield Line(
        where="Fig. 4 and section 4.3, highest bulk modulus",
        paper=197.26,
        ours=figure("sample_efficiency", "winner, bulk modulus by the elastic protocol (GPa)"),
        why="by the search on a surrogate, not by gradients; the paper's own local search found "
        "196.58 GPa. No map by composition is drawn",
        is_same_size=True,
        differs="54 atoms, the paper's potential",
        baseline=f"{figure('sample_efficiency', f'{best}: random, median best after 200 labels'):.5g} "  # noqa: E501
        "GPa, random orderings, 200 labels",
        cost=f"{figure('sample_efficiency', f'{best}: labels to 197.4 GPa, median'):.0f} labels to "
        "197.4 GPa",
        command="sample_efficiency",
        unit=" GPa",
    )
    search: Sequence[Row] = document("pcdvae_tables")["rows"]["search"]
    yield Line(
        where="Fig. SM.3, gain of the local search in 20 iterations",
        paper=None,
        ours=round(search[-1]["mean"] - search[0]["mean"], 2),
        why=f"mean of {search[0]['searches']} searches",
        is_same_size=False,
        differs=LARGE,
        baseline="0 GPa, the starts as they are",
        cost=f"{20 * 20} labels a search",
        command="pcdvae_tables",
        unit=" GPa",
        absent=SUPPLEMENT,
    )
