"""The operation count reproduces every printed figure of the papers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from compress.errors import ConfigError
from compress.flops import LanguageModel, PaperRow, VisionTower, account, paper_rows, tera


@pytest.mark.parametrize("row", paper_rows(), ids=lambda row: f"{row.paper}, {row.method}")
def test_printed_figures_are_reproduced(row: PaperRow) -> None:
    exact = row.agrees
    assert exact or row.agrees_rounded, f"{float(row.computed) / 1e12} against {row.printed}, {float(row.share)} %"
    assert exact == (row.printed_share != "11.7"), "the one share that the paper makes of rounded numbers"


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [("6272", 48.8219), ("940.8", 6.3166), ("627.2", 4.1716), ("313.6", 2.0661), ("1600", 10.9543), ("1024", 6.8923)],
)
def test_golden_operations(tokens: str, expected: float) -> None:
    assert float(LanguageModel().prefill(Fraction(tokens))) / 1e12 == pytest.approx(expected, abs=5e-5)


def test_other_roundings_are_rejected() -> None:
    """A row computed with the other table's rounding of the length no longer prints the same."""
    model = LanguageModel()
    wrong = {"InfoMerge Table 1": lambda r: 32 * int(196 * r), "InfoMerge Table 2": lambda r: r * 10816}
    rejected = 0
    for row in paper_rows():
        if row.paper in wrong and row.method.startswith("InfoMerge"):
            share = Fraction(row.method.split()[1]) / 100
            other = replace(row, computed=model.prefill(Fraction(wrong[row.paper](share))))
            rejected += not (other.agrees or other.agrees_rounded)
    assert rejected == 5


def test_parts_of_the_uncompressed_prefill() -> None:
    model = LanguageModel()
    n, d = 6272, 3584
    assert tera(28 * Fraction(2 * n * n * d), decimals=3) == "7.895"
    assert tera(28 * Fraction(3 * n * d * model.mlp_width), decimals=3) == "35.771"


def test_merging_inside_the_model() -> None:
    model = LanguageModel()
    full = model.prefill(22086)
    for layer, share in ((14, 15.7), (16, 16.5), (18, 17.3)):
        halved = model.prefill(6626, merge_layer=layer, tokens_after=3313)
        assert float(halved / full * 100) == pytest.approx(share, abs=0.05)
    with pytest.raises(ConfigError, match=r"must lie in \[0, 28\]"):
        model.prefill(10, merge_layer=29)


def test_encoder() -> None:
    assert VisionTower().frame(729) / 1e9 == pytest.approx(320, abs=1)


def test_nominal_and_achieved_are_kept_apart() -> None:
    result = account(retention=0.1, tokens_in=10816, tokens_out=1024, newline_tokens=64)
    assert tera(result.nominal) == "7.3"
    assert tera(result.achieved) == "6.9"
    assert tera(result.achieved_with_newlines) == "7.3"
    assert tera(result.full) == "94.1"
