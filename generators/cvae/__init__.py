"""The symmetry-conditioned CVAE with refinement towards a local environment."""
