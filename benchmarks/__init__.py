r"""Measurements of speed and accuracy. Run each from the repository's root: ``python -m benchmarks.<name>``."""
