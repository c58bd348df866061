"""Money, bytes and joules against sums done by hand."""

import datetime
from pathlib import Path

import pytest

from benchmarks.cost import PRICES, Counts, Price, Prices, cost, read_prices
from edge_runtime.report import Report
from outrider.errors import InvalidParameter
from outrider.receipt import Energy

DAY = datetime.date(2026, 1, 1)


def prices(hour: float = 0.0, kwh: float = 0.0, up: float = 0.0, down: float = 0.0) -> Prices:
    return Prices(*(Price(price, "", DAY, "") for price in (hour, kwh, up, down)))


def test_a_sum_done_by_hand() -> None:
    """2,000 tokens: 36 s of a verifier at 4 an hour are 0.04, 20 a million; 0.5 GB down at 0.10 are 0.05, 25 a million;
    1 GB up at 0.02 is 0.02, 10 a million; 7,200 J are 0.002 kWh, at 0.30 0.0006, 0.30 a million."""
    counts = Counts(num_tokens=2000, verifier_ms=36_000, bytes_up=10**9, bytes_down=5 * 10**8, joules=7200)
    found = cost(counts, prices(hour=4, kwh=0.30, up=0.02, down=0.10))
    assert found.verifier == pytest.approx(20)
    assert found.traffic == pytest.approx(35)
    assert found.energy == pytest.approx(0.30)
    assert found.money == pytest.approx(55.30)
    assert found.verifier_ms_a_token == pytest.approx(18)
    assert found.bytes_a_token == pytest.approx(750_000)
    assert found.joules_a_token == pytest.approx(3.6)


def test_energy_that_nobody_measured_is_unknown_and_costs_nothing() -> None:
    found = cost(Counts(1000, 0, 0, 0), prices(kwh=1))
    assert found.energy is None
    assert found.joules_a_token is None
    assert found.money == 0


def test_counts_of_a_report() -> None:
    report = Report(num_tokens=10, bytes_up=300, bytes_down=200)
    assert Counts.of(report, 50.0, Energy(3.0, "rapl")) == Counts(10, 50.0, 300, 200, 3.0)
    assert Counts.of(report, 50.0, Energy(None, "unknown")).joules is None
    with pytest.raises(InvalidParameter, match="without tokens"):
        cost(Counts.of(Report(), 1.0), prices())


def test_the_list_that_comes_along_says_what_when_and_where_from() -> None:
    found = read_prices(PRICES)
    for name in Prices.__struct_fields__:
        price = getattr(found, name)
        assert price.price >= 0
        assert price.unit
        assert len(price.source.split()) > 3
        assert price.date > datetime.date(2025, 1, 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[kwh]\nprice = 1", "is no list of prices"),
        ("price", "is no list of prices"),
        ("\xff", "is no list"),
        (None, "cannot be read"),
    ],
)
def test_a_list_that_is_none_is_refused_in_a_sentence(tmp_path: Path, text: str | None, sentence: str) -> None:
    file = tmp_path / "prices.toml"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidParameter, match=sentence):
        read_prices(file)


def test_a_price_below_nothing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(PRICES.read_text().replace("price = 0.17", "price = -0.17"))
    with pytest.raises(InvalidParameter, match=r"kwh .* is below 0"):
        read_prices(file)
