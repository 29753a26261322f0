r""":obj:`python -m pyg_emu` is :obj:`pyg-emu`."""
from __future__ import annotations

import sys

from pyg_emu.experiments.cli.main import main

if __name__ == '__main__':
    sys.exit(main())
