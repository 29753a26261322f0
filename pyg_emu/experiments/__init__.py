r"""Experiments: recipes in YAML, runs made from them, tuning, and the command line."""
