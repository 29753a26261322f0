r"""How many cores may be used: affinity, and the quotas of both versions of control groups."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyg_emu.core import cores


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    r"""A process in the group /a/b on eight cores, without any quota yet."""
    monkeypatch.setattr(cores, '_CGROUPS', tmp_path)
    monkeypatch.setattr(cores, '_PROC', tmp_path / 'self')
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)), raising=False)
    (tmp_path / 'self').write_text('0::/a/b\n')
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    cores.cgroup_quota.cache_clear()
    yield tmp_path
    cores.cgroup_quota.cache_clear()


@pytest.mark.parametrize('text, expected', [('max 100000', 8), ('100000 100000', 1), ('250000 100000', 3),
                                            ('5000 100000', 1), ('9900000 100000', 8), ('nonsense', 8)])
def test_quota_of_version_2(machine: Path, text: str, expected: int) -> None:
    (machine / 'a' / 'b' / 'cpu.max').write_text(text)
    assert cores.usable_cores() == expected


def test_smallest_quota_on_the_path(machine: Path) -> None:
    (machine / 'a' / 'cpu.max').write_text('200000 100000')
    (machine / 'a' / 'b' / 'cpu.max').write_text('max 100000')
    assert cores.usable_cores() == 2


def test_container_mounts_its_own_group_as_the_root(machine: Path) -> None:
    (machine / 'self').write_text('0::/somewhere/on/the/host\n')
    (machine / 'cpu.max').write_text('150000 100000')
    assert cores.usable_cores() == 2


def test_quota_of_version_1(machine: Path) -> None:
    (machine / 'self').write_text('5:devices:/\n4:cpu,cpuacct:/docker/x\n')
    group = machine / 'cpu,cpuacct' / 'docker' / 'x'
    group.mkdir(parents=True)
    (group / 'cpu.cfs_quota_us').write_text('-1')
    (group / 'cpu.cfs_period_us').write_text('100000')
    assert cores.usable_cores() == 8
    cores.cgroup_quota.cache_clear()
    (group / 'cpu.cfs_quota_us').write_text('300000')
    assert cores.usable_cores() == 3


def test_without_control_groups(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / 'self').unlink()
    assert cores.usable_cores() == 8
    monkeypatch.delattr(os, 'sched_getaffinity')
    assert cores.usable_cores() == (os.cpu_count() or 1)


def test_programs_of_our_own_keep_to_a_quota(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: 8)
    cores.limit_threads()
    assert 'OMP_NUM_THREADS' not in os.environ
    (machine / 'cpu.max').write_text('200000 100000')
    cores.cgroup_quota.cache_clear()
    cores.limit_threads()
    assert os.environ['OMP_NUM_THREADS'] == '2'
    monkeypatch.setenv('OMP_NUM_THREADS', '5')
    cores.limit_threads()
    assert os.environ['OMP_NUM_THREADS'] == '5'
