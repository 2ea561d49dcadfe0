"""Figures as a person reads them."""

from __future__ import annotations

import math

import pytest

from pages.widgets.text import duration, escape, gib, html, number

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0"),
        (0.0, "0"),
        (1234567, "1,234,567"),
        (1234.56, "1,235"),
        (31.44, "31.4"),
        (0.12345, "0.123"),
        (2e-5, "2e-05"),
        (-3.14159, "-3.14"),
        (math.nan, "NaN"),
        (-math.inf, "-∞"),
    ],
)
def test_numbers_have_three_significant_digits(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (30.2 * GIB, "30.2 GiB"),
        (5 * MIB, "5.00 MiB"),
        (2048, "2.00 KiB"),
        (69, "69 B"),
        (0, "0 GiB"),
    ],
)
def test_bytes_are_gib(value, shown):
    assert gib(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (4, "4 s"),
        (185, "3 min 5 s"),
        (1800, "30 min"),
        (7800, "2 h 10 min"),
        (273600, "3 d 4 h"),
        (math.inf, "–"),
    ],
)
def test_durations_have_at_most_two_units(seconds, shown):
    assert duration(seconds) == shown


def test_text_from_data_is_harmless():
    assert escape("*a* [b](javascript:x)\n# <i>") == (
        "\\*a\\* \\[b\\]\\(javascript\\:x\\) \\# \\<i\\>"
    )
    assert html('<b a="x">') == "&lt;b a=&quot;x&quot;&gt;"
