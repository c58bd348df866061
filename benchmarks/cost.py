"""What tokens cost: verifier time, energy and traffic, in money, from the counts of a run and a list of prices.

Pure arithmetic. A count that is not known (energy, where nothing measures it) is left out of the money and said to be
unknown, never guessed.
"""

import datetime
from pathlib import Path

import msgspec

from edge_runtime.report import Report
from outrider.errors import InvalidParameter
from outrider.receipt import Energy

__all__ = ["Cost", "Counts", "Price", "Prices", "cost", "read_prices"]

PRICES = Path(__file__).parent / "prices.toml"
MILLION = 1e6
MS_AN_HOUR = 3.6e6
J_A_KWH = 3.6e6
BYTES_A_GB = 1e9


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    price: float
    unit: str
    date: datetime.date  # when it was looked up
    source: str  # in words


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    verifier_hour: Price
    kwh: Price
    traffic_up_gb: Price
    traffic_down_gb: Price


class Counts(msgspec.Struct, frozen=True):
    """Of a run. `verifier_ms`: as long as it was paid for, for whatever it did; `joules`: None where not measured."""

    num_tokens: int
    verifier_ms: float
    bytes_up: int
    bytes_down: int
    joules: float | None = None

    @classmethod
    def of(cls, report: Report, verifier_ms: float, energy: Energy | None = None) -> "Counts":
        """Of one generation, which had the verifier for so long."""
        joules = None if energy is None else energy.joules
        return cls(report.num_tokens, verifier_ms, report.bytes_up, report.bytes_down, joules)


class Cost(msgspec.Struct, frozen=True):
    """For a token, and in money for a million of them. `energy` and `joules_a_token`: None where not measured."""

    bytes_a_token: float
    verifier_ms_a_token: float
    joules_a_token: float | None
    verifier: float
    traffic: float
    energy: float | None

    @property
    def money(self) -> float:
        """For a million tokens, as far as it is known."""
        return self.verifier + self.traffic + (self.energy or 0.0)


def cost(counts: Counts, prices: Prices) -> Cost:
    """Raises InvalidParameter when there are no tokens to divide by.

    >>> free = Price(0.0, "", datetime.date(2026, 1, 1), "")
    >>> prices = Prices(Price(3.6, "hour", free.date, ""), free, free, free)
    >>> cost(Counts(num_tokens=1000, verifier_ms=20_000, bytes_up=0, bytes_down=0), prices).money
    20.0
    """
    if counts.num_tokens < 1:
        raise InvalidParameter("a run without tokens has no cost per token; give one that brought some")
    scale = MILLION / counts.num_tokens
    up, down = (
        number / BYTES_A_GB * price.price
        for number, price in (
            (counts.bytes_up, prices.traffic_up_gb),
            (counts.bytes_down, prices.traffic_down_gb),
        )
    )
    joules = counts.joules
    return Cost(
        bytes_a_token=(counts.bytes_up + counts.bytes_down) / counts.num_tokens,
        verifier_ms_a_token=counts.verifier_ms / counts.num_tokens,
        joules_a_token=None if joules is None else joules / counts.num_tokens,
        verifier=scale * counts.verifier_ms / MS_AN_HOUR * prices.verifier_hour.price,
        traffic=scale * (up + down),
        energy=None if joules is None else scale * joules / J_A_KWH * prices.kwh.price,
    )


def read_prices(path: Path = PRICES) -> Prices:
    """Raises InvalidParameter for a file that cannot be read or is not a list of prices."""
    try:
        prices = msgspec.toml.decode(path.read_bytes(), type=Prices)
    except OSError as error:
        raise InvalidParameter(f"{path} cannot be read ({error.strerror}); give another list of prices") from None
    except ValueError as error:
        raise InvalidParameter(
            f"{path} is no list of prices ({error}); take benchmarks/prices.toml as a model"
        ) from None
    for name in Prices.__struct_fields__:
        if not getattr(prices, name).price >= 0:
            raise InvalidParameter(f"{name} in {path} is below 0; give a price from 0 on")
    return prices
