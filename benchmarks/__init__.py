r"""Benchmarks of speed and accuracy. Run them from the root of the repository: ``python -m benchmarks.<name>``."""
