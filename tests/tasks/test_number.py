"""Numeric answers: interval and value."""

import math
import re
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moltc_vllm.tasks import TASKS, Number, UnparsedError

SOLVATION = TASKS["solvation"].kind
LIFETIME = TASKS["lifetime"].kind
assert isinstance(SOLVATION, Number)
assert isinstance(LIFETIME, Number)
NUMBERS = [task.kind for task in TASKS.values() if isinstance(task.kind, Number)]


def solvation(interval: str, value: str, end: str = ";") -> str:
    return (
        "The solvation Gibbs free energy of these two molecules is above "
        f"{interval}, so the accurate value is {value}{end}"
    )


def test_number_writes_published_sentence() -> None:
    assert SOLVATION.write(-4.27) == (
        "The solvation Gibbs free energy of these two molecules is above -4.5 and below -4.0, "
        "so the accurate value is -4.27;"
    )
    assert TASKS["absorption"].write(423) == (
        "The Absorption max of these two molecules is above 420.0 and below 430.0, "
        "so the accurate value is 423.0;"
    )


@pytest.mark.parametrize(
    ("value", "interval", "written"),
    [
        (-4.5, "-4.5 and below -4.0", "-4.50"),  # published: above -4.5 and below -4.5
        (0, "0.0 and below 0.5", "0.00"),
        (-0.001, "0.0 and below 0.5", "0.00"),  # rounded to "0.00", not "-0.00"
        (-0.01, "-0.5 and below 0.0", "-0.01"),
        (3.999, "4.0 and below 4.5", "4.00"),
        (-80, "-80.0 and below -79.5", "-80.00"),
        (40, "40.0 and below 40.5", "40.00"),
    ],
)
def test_number_rounds_before_choosing_interval(value: float, interval: str, written: str) -> None:
    assert SOLVATION.write(value) == solvation(interval, written)


def test_number_assigns_tenths_to_exact_intervals() -> None:
    kind = TASKS["quantum_yield"].kind
    for tenth in range(11):  # 3 * 0.1 and 0.7 // 0.1 are inexact in floats
        text = kind.write(tenth / 10)  # type: ignore[arg-type]
        assert f"above {tenth / 10} and below {(tenth + 1) / 10}, " in text


@pytest.mark.parametrize(
    ("value", "interval"),
    [
        (0, (0, 0.01)),
        (0.0001, (0, 0.01)),
        (0.01, (0.01, 0.02)),
        (0.3, (0.2, 0.5)),
        (2.85, (2, 5)),
        (5, (5, 10)),
        (2730, (2000, 5000)),
        (5000, (5000, 10000)),
    ],
)
def test_lifetime_has_three_intervals_per_decade(
    value: float, interval: tuple[float, float]
) -> None:
    assert LIFETIME.parse(LIFETIME.write(value)).interval == interval


@pytest.mark.parametrize("kind", NUMBERS, ids=lambda kind: kind.phrase)
@given(data=st.data())
def test_number_round_trips(kind: Number, data: st.DataObject) -> None:
    value = data.draw(st.floats(*kind.bounds) | st.integers(*kind.bounds))
    fields = kind.parse(kind.write(value))
    assert fields.value is not None
    assert fields.interval is not None
    lower, upper = fields.interval
    assert abs(fields.value - value) <= 0.5 * 10**-kind.decimals * (1 + 1e-9)
    assert lower <= fields.value < upper
    assert fields.unit == (kind.unit or None)
    if kind.scale == "linear":
        width = Decimal(repr(kind.interval_width))
        assert Decimal(repr(upper)) - Decimal(repr(lower)) == width
        assert Decimal(repr(lower)) % width == 0


@pytest.mark.parametrize("kind", NUMBERS, ids=lambda kind: kind.phrase)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_number_rejects_value_outside_bounds(kind: Number, value: float) -> None:
    with pytest.raises(ValueError, match="is outside"):
        kind.write(value)


@pytest.mark.parametrize(
    "text",
    [
        solvation("-4.5 and below -4.0", "-4.27", end=""),
        solvation("-4.5 and below -4.0", "-4.27", end=" ; \n"),
        "\n " + solvation("-4.5  and below -4.0", "-4.27").upper(),
        solvation("-4.5 and below -4.0 ", "-4.270"),
    ],
)
def test_number_parses_irregular_texts(text: str) -> None:
    fields = SOLVATION.parse(text)
    assert (fields.value, fields.interval) == (-4.27, (-4.5, -4.0))


def test_number_keeps_value_outside_its_interval() -> None:
    fields = SOLVATION.parse(solvation("-4.5 and below -4.0", "12.3"))
    assert (fields.value, fields.interval) == (12.3, (-4.5, -4.0))


def test_number_parses_empty_published_interval() -> None:
    assert SOLVATION.parse(solvation("-4.5 and below -4.5", "-4.50")).interval == (-4.5, -4.5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not of the form"),
        ("-4.27", "not of the form"),
        (solvation("-4.5 and below -4.0", "-4.27", end="; and more"), "not of the form"),
        (solvation("-4.5 and below -4.0", "-4."), "not of the form"),
        (solvation("-4.5 and below -4.0", ""), "not of the form"),
        (solvation("-4.5 and below -4.0", "nan"), "not of the form"),
        (solvation("-4.5 and below -4.0", "9" * 400), "not of the form"),
        (solvation("-4.5 and below -4.0", "٤"), "not of the form"),
        (solvation("-4.0 and below -4.5", "-4.27"), "has its ends reversed"),
        (solvation("-90.5 and below -90.0", "-90.27"), "-90.27 is outside -80 to 40 kcal/mol"),
        (TASKS["emission"].write(500), "not of the form"),
    ],
)
def test_number_rejects_other_texts(text: str, reason: str) -> None:
    with pytest.raises(UnparsedError, match=re.escape(reason)):
        SOLVATION.parse(text)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bounds": (1, 1)}, "must be ascending"),
        ({"bounds": (-5, -1)}, "positive upper bound"),
        ({"scale": "1-2-5"}, "starts at zero"),
        ({"interval_width": 0}, "must be positive"),
        ({"decimals": 0}, "at least one"),
    ],
)
def test_number_rejects_invalid_definition(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(SOLVATION, **changes)  # type: ignore[arg-type]
