"""Building blocks of the learned generators."""
