"""Descriptors: named columns computed from crystals."""
