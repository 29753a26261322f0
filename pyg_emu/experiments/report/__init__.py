r"""One HTML page about a run, or about several runs next to each other."""
from pyg_emu.experiments.report.write import Report, write_report

__all__ = ['Report', 'write_report']
