"""What this machine is, as far as speed and bits depend on it: its processor and its physical cores.

Asks the operating system only; knows no engine.
"""

import functools
import os
import platform
import subprocess
from pathlib import Path

from outrider.errors import InvalidParameter

__all__ = ["num_physical_cores", "processor", "resolve_threads"]

TOPOLOGY = Path("/sys/devices/system/cpu")
CPUINFO = Path("/proc/cpuinfo")
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of processor time in each so many


def resolve_threads(num_threads: int) -> int:
    """The number itself; 0 stands for the physical cores. Raises InvalidParameter below 0."""
    if num_threads < 0:
        raise InvalidParameter(f"{num_threads} threads make no sense; give a number from 1, or 0 to leave it open")
    return num_threads or num_physical_cores()


@functools.cache
def num_physical_cores() -> int:
    """Cores this process may run on, two hardware threads of one core counted once, and no more than a container's
    share of processor time is worth. At least 1."""
    logical = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_core(cpu) for cpu in logical}
    if platform.system() == "Darwin":
        return int(_sysctl("hw.physicalcpu") or len(cores))
    return max(1, min(len(cores), _quota()))


def _quota() -> int:
    """Whole processors' worth of time that a control group is granted; far more than there are where none is set."""
    try:
        granted, period = QUOTA.read_text().split()
        return int(granted) // int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no such file
        return 2**16


@functools.cache
def processor() -> str:
    """The processor's name, e.g. "AMD EPYC 9B14"."""
    if platform.system() == "Darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    named = next((fields[key] for key in ("model name", "Hardware", "Model") if fields.get(key)), "")
    # Cloud machines hide the model's name; family, model and stepping still tell processors apart.
    numbers = "/".join(fields[key] for key in ("cpu family", "model", "stepping") if key in fields)
    known = f"{named} ({numbers})" if named and numbers else named
    return known or platform.processor() or platform.machine() or "unknown processor"


def _core(cpu: int) -> tuple[str, str]:
    folder = TOPOLOGY / f"cpu{cpu}" / "topology"
    try:
        return (folder / "physical_package_id").read_text().strip(), (folder / "core_id").read_text().strip()
    except OSError:
        return "", str(cpu)  # no topology told: count each processor


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
