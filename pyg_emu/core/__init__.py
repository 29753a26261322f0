r"""What every room builds on: errors, checks of arguments, the interactions, the protocols, processes and files."""
