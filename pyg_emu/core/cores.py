r"""How many cores this process may use: its affinity and, in a container, the quota of its cgroup."""
from __future__ import annotations

import functools
import math
import os
from pathlib import Path

_PROC = Path('/proc/self/cgroup')
_CGROUPS = Path('/sys/fs/cgroup')


def usable_cores() -> int:
    r"""The number of cores that this process may keep busy, at least 1.

    The smaller one of the cores that the scheduler may place the process on and the quota of its control groups
    (:obj:`cpu.max`, or :obj:`cpu.cfs_quota_us` of the first version), rounded up.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    quota = cgroup_quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def limit_threads() -> None:
    r"""Sets :obj:`OMP_NUM_THREADS` where a quota leaves less than the cores in sight, for a program of our own that has
    not loaded PyTorch yet. What the user has set stays.
    """
    quota = cgroup_quota()
    if quota is not None and usable_cores() < (os.cpu_count() or 1):
        os.environ.setdefault('OMP_NUM_THREADS', str(usable_cores()))


@functools.cache
def cgroup_quota() -> float | None:
    r"""The quota in cores, the smallest along the path to the root; :obj:`None` where there is none. Read once."""
    try:
        lines = _PROC.read_text(encoding='utf-8').splitlines()
    except OSError:  # not Linux
        return None
    found = []
    for line in lines:
        _, controllers, path = line.split(':', 2)
        if controllers and 'cpu' not in controllers.split(','):
            continue
        roots = [_CGROUPS / name for name in ('cpu', 'cpu,cpuacct')] if controllers else [_CGROUPS]
        # In a container, the group that is mounted as the root stands in the place of the whole path.
        groups = [Path(path.strip('/')), *Path(path.strip('/')).parents]
        found += [quota for root in roots for group in groups if (quota := _quota_of(root / group)) is not None]
    return min(found, default=None)


def _quota_of(group: Path) -> float | None:
    try:
        if (group / 'cpu.max').is_file():
            quota, period = (group / 'cpu.max').read_text(encoding='utf-8').split()
        else:
            quota = (group / 'cpu.cfs_quota_us').read_text(encoding='utf-8').strip()
            period = (group / 'cpu.cfs_period_us').read_text(encoding='utf-8').strip()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such group; or 'max', no quota
        return None
