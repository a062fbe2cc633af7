from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codecmeta.container.mpeg4_headers import video_object_layer
from codecmeta.prediction.rounding_control import h263_rounding_type, rounding_type
from tests.oracle.streams import encode


@pytest.mark.parametrize(
    ("options", "quarter", "interlaced"),
    [
        ({}, False, False),
        ({"flags": "+qpel+mv4"}, True, False),
        ({"mpeg_quant": "1"}, False, False),
        ({"flags": "+ildct+ilme"}, False, True),
    ],
)
def test_mpeg4_encoders_flip_the_rounding(options: dict[str, str], quarter: bool, interlaced: bool) -> None:
    stream = encode("mpeg4", options=options)
    layer = video_object_layer(stream.extradata or b"")
    assert layer is not None
    assert layer.quarter_sample == quarter
    assert layer.interlaced == interlaced
    assert layer.rectangular
    assert layer.time_increment_bits == 5  # 25 pictures per second
    values = [rounding_type(bytes(packet), layer) for packet in stream.packets]
    assert values == [0, 1] * 4


def test_b_pictures_carry_no_rounding() -> None:
    stream = encode("mpeg4", b_frames=2, count=9)
    layer = video_object_layer(stream.extradata or b"")
    kinds = [bytes(p)[bytes(p).find(b"\0\0\1\xb6") + 4] >> 6 for p in stream.packets]
    values = [rounding_type(bytes(packet), layer) for packet in stream.packets]
    assert 2 in kinds
    assert all(value == 0 for value, kind in zip(values, kinds, strict=True) if kind in (0, 2))
    assert [value for value, kind in zip(values, kinds, strict=True) if kind == 1][:2] == [1, 0]


def test_layer_inside_the_packet_goes_first() -> None:
    stream = encode("mpeg4")
    payload = bytes(stream.packets[1])
    assert rounding_type(payload, None) is None
    assert rounding_type((stream.extradata or b"") + payload, None) == 1


def test_h263() -> None:
    plus = encode("h263p")
    assert [h263_rounding_type(bytes(p)) for p in plus.packets] == [0, 1] * 4
    plain = encode("h263")
    assert [h263_rounding_type(bytes(p)) for p in plain.packets] == [0] * 8


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    layer = video_object_layer(b"\0\0\1\x20" + data)
    assert rounding_type(b"\0\0\1\xb6" + data, layer) in (None, 0, 1)
    assert rounding_type(data, layer) in (None, 0, 1)
    assert h263_rounding_type(b"\0\0\x80" + data) in (None, 0, 1)
