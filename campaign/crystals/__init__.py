"""Crystal numerics that all parts of the house share: pure functions of arrays."""
