"""The eight orientations: pictures, places, boxes and matrices agree."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from codecmeta.record.orientation import Orientation, display_aspect, display_size

EIGHT = [Orientation(transposed=t, mirrored=m, flipped=f) for t, m, f in itertools.product((False, True), repeat=3)]
WIDTH, HEIGHT = 7, 4


@pytest.mark.parametrize("orientation", EIGHT)
def test_the_matrix_takes_pixels_to_where_they_are_displayed(orientation: Orientation) -> None:
    picture = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
    shown = orientation.turn(picture)
    matrix = np.array(orientation.matrix(width=WIDTH, height=HEIGHT))
    assert shown.shape[::-1] == orientation.swap(WIDTH, HEIGHT)
    for y, x in np.ndindex(HEIGHT, WIDTH):
        across, down = matrix @ (x + 0.5, y + 0.5, 1)
        assert shown[math.floor(down), math.floor(across)] == picture[y, x]
        assert orientation.turn_points(x + 0.5, y + 0.5, width=WIDTH, height=HEIGHT) == (across, down)
        left, top, right, bottom = orientation.coded_box(
            (math.floor(across), math.floor(down), math.ceil(across), math.ceil(down)), width=WIDTH, height=HEIGHT
        )
        assert (left, top, right, bottom) == (x, y, x + 1, y + 1)
    stack = np.stack([picture, picture + 1])
    np.testing.assert_array_equal(orientation.turn(stack, rows=1)[1], shown + 1)
    assert Orientation.from_matrix(matrix.tolist(), width=WIDTH, height=HEIGHT) == orientation
    others = [one for one in EIGHT if one.matrix(width=WIDTH, height=HEIGHT) == matrix.tolist()]
    assert others == [orientation]


@pytest.mark.parametrize("degrees", range(-360, 361, 90))
def test_rotations_are_counter_clockwise(degrees: int) -> None:
    picture = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(Orientation.from_rotation(degrees).turn(picture), np.rot90(picture, degrees // 90))


@pytest.mark.parametrize("scale", [1, 40000, 1 << 16, 2**31 - 1])
def test_display_matrices_of_any_scale(scale: int) -> None:
    for orientation in EIGHT:
        (a, c, _), (b, d, _) = orientation.matrix(width=WIDTH, height=HEIGHT)
        matrix = [scale * a, scale * b, 0, scale * c, scale * d, 0, 5, 6, 1 << 30]
        assert Orientation.from_display_matrix(matrix) == orientation
        assert (
            Orientation.from_display_matrix([3 * scale * a, 2 * scale * b, 0, 3 * scale * c, 2 * scale * d])
            == orientation
        )


@pytest.mark.parametrize(
    ("degrees", "quarter"), [(0.4, 0), (89.6, 90), (90.4, 90), (-90.3, 270), (1, None), (45, None)]
)
def test_whole_degrees_count(degrees: float, quarter: int | None) -> None:
    a, b = (round(65536 * value) for value in (math.cos(math.radians(degrees)), math.sin(math.radians(degrees))))
    found = Orientation.from_display_matrix([a, b, 0, -b, a])
    assert found == (None if quarter is None else Orientation.from_rotation(-quarter))


@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [
        ((720, 576), (64, 45), (1024, 576)),
        ((720, 480), (8, 9), (640, 480)),
        ((1440, 1080), (4, 3), (1920, 1080)),
        ((854, 480), (1, 1), (854, 480)),
        ((854, 480), None, (854, 480)),
        ((100, 50), (17, 1), (100, 50)),
        ((100, 50), (0, 1), (100, 50)),
        ((100, 50), (1, -1), (100, 50)),
        ((1, 50), (1, 16), (1, 50)),
    ],
)
def test_sizes_in_square_pixels(
    size: tuple[int, int], ratio: tuple[int, int] | None, expected: tuple[int, int]
) -> None:
    assert display_size(*size, orientation=Orientation(), sample_aspect=ratio) == expected
    inverse = (ratio[1], ratio[0]) if ratio else None
    turned = display_size(size[1], size[0], orientation=Orientation.from_rotation(90), sample_aspect=inverse)
    assert turned == expected
    wide, tall = display_aspect(*size, orientation=Orientation(), sample_aspect=ratio)
    assert math.gcd(wide, tall) == 1
