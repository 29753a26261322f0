r"""Errors, argument checks, interactions, protocols, process groups and file writing: the base of all subpackages."""
