"""Time to the first token: ratios are those to the plain run of the same round, stages are summed."""

from __future__ import annotations

import pytest

from bench.first_token import summarise, write_row


def test_ratios_are_of_rounds_and_stages_are_summed() -> None:
    plain = {"ttft": 6.0, "tower": 1.5, "projector": 0.5}
    busy = {name: 10 * value for name, value in plain.items()}
    one = {"tokens": 392.0, "ttft": 2.0, "tower": 0.75, "projector": 0.25, "prefill": 0.5, "compress": 0.1, "rpm": 0.2}
    slow = {name: 10 * value for name, value in one.items() if name != "tokens"} | {"tokens": 392.0}
    row = summarise([(plain, one), (busy, slow), (busy, slow)])
    assert row["first_token_ratio"] == pytest.approx(3) and row["tower_ratio"] == pytest.approx(2)
    assert row["first_token_seconds"] == 20 and row["tower_seconds"] == 10
    assert row["compress_seconds"] == pytest.approx(3)
    assert write_row("rpm@0.5", row) == "| `rpm@0.5` | 392 | 20.00 | 3.00 | 10.00 | 2.00 | 5.00 |"
