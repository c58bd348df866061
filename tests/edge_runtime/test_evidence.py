"""Where an answer's tokens came from, and what the device used meanwhile."""

from pathlib import Path

import pytest

from edge_runtime.energy import EnergyMeter
from edge_runtime.evidence import Provenance, make_receipt
from edge_runtime.report import Report
from outrider.choice import SamplingParams
from outrider.errors import InvalidReceipt
from outrider.receipt import Energy, Receipt, Run, check


def test_provenance_follows_the_list() -> None:
    provenance = Provenance()
    for by in ("lookup", "lookup", None, "model"):
        provenance.append(by)
    for _ in range(5):
        provenance.append("model", is_verified=False)
    assert provenance.runs() == [
        Run("lookup", 2),
        Run("target", 1),
        Run("model", 1),
        Run("model", 5, is_verified=False),
    ]
    provenance.confirm(6)
    provenance.retract(7)
    provenance.append(None)
    assert len(provenance) == 8
    assert provenance.num_retracted == 2
    assert provenance.runs()[2:] == [Run("model", 3), Run("model", 1, is_verified=False), Run("target", 1)]


def test_an_answer_given_offline_has_a_receipt_that_says_so() -> None:
    import msgspec

    provenance = Provenance()
    for _ in range(3):
        provenance.append("model", is_verified=False)
    data = make_receipt(
        [1, 2],
        [3, 4, 5],
        "length",
        params=SamplingParams(),
        vocabulary="v",
        report=Report(),
        provenance=provenance,
        drafters={"model": "abc"},
        energy=Energy(1.5, "battery"),
        seal=None,
    )
    receipt = msgspec.json.decode(data, type=Receipt)
    assert (receipt.counts.provisional, receipt.counts.accepted, receipt.counts.corrected) == (3, 0, 0)
    assert receipt.models.drafters == {"model": "abc"}
    with pytest.raises(InvalidReceipt, match="nobody signed"):
        check(data)


def put(folder: Path, **words: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, word in words.items():
        (folder / name).write_text(f"{word}\n")


def rapl(root: Path, zone: str, name: str, energy_uj: int) -> None:
    put(root / "powercap" / zone, name=name, energy_uj=energy_uj, max_energy_range_uj=9_999_999)


def test_energy_of_the_processor_packages_across_an_overflow(tmp_path: Path) -> None:
    rapl(tmp_path, "intel-rapl:0", "package-0", 9_000_000)
    rapl(tmp_path, "intel-rapl:0:0", "core", 5)  # part of the package
    rapl(tmp_path, "intel-rapl:1", "package-1", 1_000_000)
    rapl(tmp_path, "intel-rapl:2", "psys", 7)
    meter = EnergyMeter(tmp_path)
    rapl(tmp_path, "intel-rapl:0", "package-0", 500_000)  # it began anew after 9_999_999
    rapl(tmp_path, "intel-rapl:0:0", "core", 900)
    rapl(tmp_path, "intel-rapl:1", "package-1", 3_000_000)
    assert meter.read() == Energy(3.5, "rapl")


def test_energy_of_a_battery_that_discharges(tmp_path: Path) -> None:
    battery = tmp_path / "power_supply" / "BAT0"
    put(battery, type="Battery", status="Discharging", energy_now=50_000_000)
    put(tmp_path / "power_supply" / "mouse", type="Battery", scope="Device", status="Discharging", energy_now=1)
    put(tmp_path / "power_supply" / "AC", type="Mains", online=0)
    meter = EnergyMeter(tmp_path)
    assert meter.read() == Energy(0.0, "battery")
    put(battery, energy_now=49_990_000)
    assert meter.read() == Energy(36.0, "battery")
    put(battery, status="Charging", energy_now=50_500_000)
    assert meter.read() == Energy(None, "unknown")


def test_energy_of_a_battery_that_counts_charge(tmp_path: Path) -> None:
    battery = tmp_path / "power_supply" / "BAT0"
    put(battery, type="Battery", status="Discharging", charge_now=2_000_000, voltage_now=10_000_000)
    meter = EnergyMeter(tmp_path)
    put(battery, charge_now=1_999_000)
    assert meter.read().joules == pytest.approx(36.0)


@pytest.mark.parametrize("content", ["", "-5", "a lot"])
def test_energy_that_cannot_be_read_is_unknown(tmp_path: Path, content: str) -> None:
    assert EnergyMeter(tmp_path / "nowhere").read() == Energy(None, "unknown")
    rapl(tmp_path, "intel-rapl:0", "package-0", 5)
    (tmp_path / "powercap" / "intel-rapl:0" / "energy_uj").write_text(content)  # as where only root may read it
    put(tmp_path / "power_supply" / "BAT0", type="Battery", status="Discharging", energy_now=content)
    assert EnergyMeter(tmp_path).read() == Energy(None, "unknown")


def test_energy_on_this_machine_is_a_number_or_unknown() -> None:
    energy = EnergyMeter().read()
    assert (energy.joules is None) == (energy.source == "unknown")
