"""Acquisition on a finite pool with BoTorch's own classes.

Every candidate of the pool gets a value of its own; the best of these (the shortlist) enter the
joint, sequentially greedy selection of the batch, where pending work and the batch's earlier
members count. The joint posterior of shortlist, pending work and labels is computed once, and
BoTorch's acquisition functions look it up. With n pool candidates, m labels, p pending, shortlist s
and batch q: O(n m^2) time for the scores, O((s + p) m^2) for the joint posterior and O(s q (p +
q)^3) for the batch; memory O((s + p)^2 + m^2).
"""

from campaign.acquisition.aims import Aims, Bound
from campaign.acquisition.batch import Output, Scores, select

__all__ = ["Aims", "Bound", "Output", "Scores", "select"]
