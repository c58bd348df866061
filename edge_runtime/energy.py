"""What the device used meanwhile, where the platform tells: RAPL's counters, else a battery that discharges.

Both speak of the whole device, not of this program. Where neither speaks the answer is unknown, never a guess.
"""

from pathlib import Path

from outrider.receipt import Energy

__all__ = ["EnergyMeter"]

SYSTEM = Path("/sys/class")
UNKNOWN = Energy(None, "unknown")
JOULES_PER_WATT_HOUR = 3600


class EnergyMeter:
    """Counts from its construction on. `root` is where Linux tells of its devices."""

    def __init__(self, root: Path = SYSTEM) -> None:
        self._root = root
        self._counters = self._read_counters()
        self._stored_j = self._read_battery() if not self._counters else None

    def read(self) -> Energy:
        """Since the beginning. A counter that ran over once in between is allowed for."""
        if self._counters:
            now = self._read_counters()
            if now.keys() != self._counters.keys():
                return UNKNOWN
            used = sum((now[name][0] - before) % (most + 1) for name, (before, most) in self._counters.items())
            return Energy(used / 1e6, "rapl")
        stored_j = self._read_battery() if self._stored_j is not None else None
        if self._stored_j is None or stored_j is None or stored_j > self._stored_j:
            return UNKNOWN
        return Energy(self._stored_j - stored_j, "battery")

    def _read_counters(self) -> dict[str, tuple[int, int]]:
        """Microjoules and where they start over, of each processor package; its parts are in it already."""
        found = {}
        for zone in sorted(self._root.glob("powercap/intel-rapl:*")):
            used, most = _number(zone / "energy_uj"), _number(zone / "max_energy_range_uj")
            if zone.name.count(":") == 1 and _word(zone / "name").startswith("package"):
                if used is None or most is None:  # most systems let only root read them
                    return {}
                found[zone.name] = (used, most)
        return found

    def _read_battery(self) -> float | None:
        """Joules in the batteries; None when there is none, or one is not discharging."""
        total_j = 0.0
        batteries = [each for each in self._root.glob("power_supply/*") if _word(each / "type") == "Battery"]
        for battery in batteries:
            if _word(battery / "scope") == "Device":  # a mouse's
                continue
            energy, charge, voltage = (_number(battery / name) for name in ("energy_now", "charge_now", "voltage_now"))
            if _word(battery / "status") != "Discharging":
                return None
            if energy is not None:
                total_j += energy / 1e6 * JOULES_PER_WATT_HOUR
            elif charge is not None and voltage is not None:
                total_j += charge / 1e6 * voltage / 1e6 * JOULES_PER_WATT_HOUR
            else:
                return None
        return total_j or None


def _word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def _number(path: Path) -> int | None:
    word = _word(path)
    return int(word) if word.isdecimal() else None
