"""Maps of a record are chosen by one rule, and those that it lacks are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from codecmeta_cli.compress_run import Map

from codecmeta import DENSITY_MAPS, VideoMeta
from compress.density import AUTO, MAP_CHOICES, choose_maps, measure_density
from compress.errors import ConfigError, SignalError
from compress.metom.rpm import RPM
from tests.codecmeta.record.test_meta import record

INNOVATION = "energy_innovation", "range_innovation", "residual_power", "residual_mean", "mb_bits", "mb_type"
FIELDS = *INNOVATION, "energy_carried", "range_carried", "frames"


def holding(*arrays: str) -> VideoMeta:
    """Return a record with some of the optional arrays."""
    return replace(record(), **{name: None for name in FIELDS if name not in arrays})


DEFAULT = holding(*INNOVATION, "frames")
"""A default record of H.264 or HEVC."""


def test_auto_takes_the_first_map_of_its_rule_that_the_record_has() -> None:
    for meta, expected in (
        (DEFAULT, AUTO),
        (holding("frames"), {"patches": ("texture",), "tokens": ("texture",)}),
        (holding("energy_innovation", "range_innovation"), {"patches": ("innovation",), "tokens": ("innovation",)}),
        (holding("energy_carried", "range_carried"), {"patches": ("carried",), "tokens": ("carried",)}),
    ):
        maps = choose_maps(meta, "auto")
        assert (maps.patches, maps.tokens, maps.skipped) == (expected["patches"][0], expected["tokens"][0], "")
    empty = choose_maps(holding(), "auto")
    assert empty.patches is None and empty.tokens is None
    assert empty.skipped == "the record has neither cached frames nor a residual"
    with pytest.raises(SignalError, match="neither cached frames nor a residual; run: codecmeta extract"):
        measure_density(holding(), empty.tokens, (2, 2), covered=1.0)


def test_the_rule_ends_in_maps_that_other_records_have() -> None:
    """The first follows from a default record, and records of pixels or of residuals alone are not left out."""
    for names in AUTO.values():
        assert names[0] in DEFAULT.density_maps
        assert {"texture", "innovation", "carried"} <= set(names) <= set(DENSITY_MAPS)


def test_a_map_by_name() -> None:
    for name in DENSITY_MAPS:
        if name == "carried":
            with pytest.raises(
                SignalError, match=r"no map 'carried' \(not extracted\); it has innovation, texture, bits"
            ):
                choose_maps(DEFAULT, name)
            continue
        maps = choose_maps(DEFAULT, name)
        assert maps.patches == maps.tokens == name
    none = choose_maps(DEFAULT, "none")
    assert (none.patches, none.tokens, none.skipped) == (None, AUTO["tokens"][0], "map is none")
    with pytest.raises(ConfigError, match="unknown map 'detail'; choose from auto, none, innovation"):
        choose_maps(DEFAULT, "detail")


def test_the_command_line_offers_all_maps() -> None:
    assert set(Map.__args__) == set(MAP_CHOICES)


@pytest.mark.parametrize("name", DENSITY_MAPS)
def test_an_all_zero_map_merges_nothing(name: str) -> None:
    meta = record()
    arrays = {field: np.zeros_like(array) for field in FIELDS if (array := getattr(meta, field)) is not None}
    still = replace(meta, **arrays)
    density = measure_density(still, name, (6, 8), covered=1.0)
    assert (density == 1).all()
    merged = RPM(target_keep=0.5).before_encoder(density)
    assert merged.achieved == merged.plan.count_in
    assert RPM(target_keep=0.5).before_encoder(measure_density(meta, name, (6, 8), covered=1.0)).achieved < 3 * 48
