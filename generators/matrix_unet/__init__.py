"""Conditional generation and modification of crystals: flow matching, diffusion and regression."""
