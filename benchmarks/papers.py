"""Writes docs/science/papers.md, every table and figure of the three papers beside ours: python -m
benchmarks.papers

Ours are read from the committed results. A verdict compares ours with the paper's number and says
why they differ, where they do.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.paper_alloys import alloys
from benchmarks.paper_nets import nets
from benchmarks.paper_polymorphs import polymorphs

PAGE = Path(__file__).resolve().parent.parent / "docs" / "science" / "papers.md"

NOTES = {
    "alloys": (
        "The paper's central claim, that crystals of a local search make optimisation by "
        "gradients work, goes the other way here: at 16",
        "atoms the plain form gains more with random data. Which is right at 54 atoms is open.",
    ),
    "polymorphs": (
        "The published networks had minutes of training here, so no ratio to them is told. "
        "What the equivariant flow adds to its starts",
        "shows on prototypes that it never saw; on formulas of known prototypes substitution "
        "is better.",
    ),
    "nets": (
        "Learned cells add a tenth to random cells on the same sites: the choice of the sites "
        "is the learned part.",
    ),
}
PAPERS = {
    "High-entropy alloys: P-CDVAE (Naghdi, Kaszuba et al., 2023)": alloys,
    "Conditional generation on a matrix form (AIRI, 2024)": polymorphs,
    "Carbon nets: CVAE with SO(3) refinement": nets,
}
HEADER = (
    "table or figure",
    "paper",
    "ours",
    "same size",
    "trivial baseline",
    "cost",
    "command",
    "verdict",
)


def page() -> str:
    lines = [
        "# The papers, beside ours",
        "",
        "Every table and figure of the three papers whose methods are here, with the paper's "
        "number, ours, whether the size is the same, the simplest",
        "thing that one could do instead, what ours cost, and the command that measures it. "
        "`python -m benchmarks.papers` writes this",
        "page from the committed results. A number of another size or of less training says "
        "little of a method; it is here so that nothing is left out.",
    ]
    for title, entries in PAPERS.items():
        found = list(entries())
        counts = {
            verdict: sum(line.verdict == verdict for line in found)
            for verdict in dict.fromkeys(line.verdict for line in found)
        }
        lines += [
            "",
            f"## {title}",
            "",
            *NOTES[entries.__name__],
            "",
            "; ".join(f"{n} {verdict}" for verdict, n in counts.items()) + ".",
            "",
        ]
        lines += ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
        lines += ["| " + " | ".join(line.cells) + " |" for line in found]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
