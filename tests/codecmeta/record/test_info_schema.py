"""The kinds of the facts in `info`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from codecmeta import MetaFormatError, extract, load
from codecmeta.record.info_schema import check_info
from tests.codecmeta.record.test_meta import INFO, record, rewrite, with_info

WRONG: list[tuple[str, Any]] = [
    ("source__name", None),
    ("source__bytes", "many"),
    ("source__mtime_ns", 2**96),
    ("stream__codec", 264),
    ("stream__width", True),
    ("stream__width", 50.0),
    ("stream__orientation", 90),
    ("stream__fps", "25"),
    ("stream__fps", float("inf")),
    ("stream__duration_s", float("nan")),
    ("stream__bit_depth", []),
    ("stream__time_base", [1, 10**400]),
    ("stream__time_base", ["1", "25"]),
    ("stream__time_base", {"1": 25}),
    ("stream__time_base", [1, 2, 3]),
    ("verdict__state", {}),
    ("verdict__frames", [3]),
    ("signals__carried", "bitstream"),
    ("signals__carried", {"source": 5}),
    ("signals__carried", {"absent": None}),
    ("extraction__version", 1),
    ("extraction__warnings", "one"),
    ("extraction__warnings", [1]),
]


@pytest.mark.parametrize(("place", "value"), WRONG)
def test_a_fact_of_another_kind_is_refused(tmp_path: Path, place: str, value: Any) -> None:
    record().save(tmp_path / "good.npz")
    bad = rewrite(tmp_path / "good.npz", tmp_path / "bad.npz", {"info": with_info(**{place: value})})
    with pytest.raises(MetaFormatError, match=place.replace("__", r"\.")) as caught:
        load(bad)
    assert caught.value.field == "info"
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("place", ["source.name", "stream.height", "extraction.block", "verdict"])
def test_what_the_arrays_need_is_there(place: str) -> None:
    info = copy.deepcopy(INFO)
    section, _, name = place.partition(".")
    del (info[section] if name else info)[name or section]
    with pytest.raises(KeyError, match=place):
        check_info(info)


def test_other_facts_are_left_alone(data: Path) -> None:
    check_info(extract(data / "noise_mpeg4.avi", frames="uniform:2").info)
    check_info(INFO)
    info = copy.deepcopy(INFO)
    info["stream"]["colour"] = {"primaries": [1, None]}
    info["signals"]["depth"] = {"source": "elsewhere", "scale": 1.5}
    check_info(info)
