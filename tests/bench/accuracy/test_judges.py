"""Judges: read from the command line, and compared on the same clips by score, rank and agreement."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.accuracy.judges import Judge, rank, tabulate, write_table
from compress.accuracy.methods import IDENTITY, MEASURED, choose
from tests.compress.accuracy.fabricated import fabricate, make_job


def test_a_judge_is_read_from_its_settings() -> None:
    assert Judge.read("thinned=") == Judge(name="thinned")
    assert Judge.read("a=some/where,frames=32") == Judge(name="a", weights=Path("some/where"), frames=32)
    dense = Judge.read("dense=,positions=contiguous")
    assert dense.place(MEASURED["metom"]).settings["positions"] == "contiguous"
    assert dense.place(MEASURED["random"]).settings["positions"] == "contiguous"
    assert dense.place(MEASURED["rpm"]) is MEASURED["rpm"]
    assert dense.place(IDENTITY) is IDENTITY
    assert Judge.read("thinned=").place(MEASURED["metom"]) is MEASURED["metom"]
    for method in choose("method,baseline,published"):
        placed = dense.place(method)
        if method.kept != "tokens_out":
            assert placed is method
            continue
        built = placed.build(0.1, seed=0, draw=0, occupied=np.zeros((16, 7, 7), bool))
        assert built.positions == "contiguous"


def test_ranks_are_from_the_best() -> None:
    assert rank(np.array([[0.9, 0.5, 0.7], [0.1, 0.1, 0.0]])).tolist() == [[1, 3, 2], [1.5, 1.5, 3]]


def test_judges_that_reverse_the_order_disagree() -> None:
    job = make_job("stride,random,frames", retentions=(0.1,))
    one = fabricate(job)  # the later a method stands in the job, the more often it is right
    other = fabricate(make_job("frames,random,stride", retentions=(0.1,)))
    record = tabulate({"one": one, "other": other, "again": one}, job.methods, (0.1,))
    assert record["agreement"]["0.1"] == {"one other": -1.0, "one again": 1.0, "other again": -1.0}
    found = record["methods"]["0.1"]["stride"]
    assert (found["one"]["rank"]["value"], found["other"]["rank"]["value"]) == (3, 1)
    assert "| `stride` |" in write_table(record) and "| 1 to 3 |" in write_table(record)
