"""How pictures look: names at the ends of lines."""

from itertools import pairwise

import numpy as np
import pytest

from trevsnn.drawing import LONGEST, apart, chart, name_lines, short


@pytest.mark.parametrize(
    ("places", "distance", "expected"),
    [
        ([0.1, 0.5, 0.9], 0.2, [0.1, 0.5, 0.9]),
        ([0.5, 0.5], 0.2, [0.4, 0.6]),
        ([0.9, 0.5, 0.5], 0.2, [0.9, 0.4, 0.6]),
        ([0.5, 0.45, 0.8], 0.1, [0.525, 0.425, 0.8]),
        ([0.0, 0.0, 1.0], 0.1, [0.0, 0.1, 1.0]),  # the nearest would be -0.05 and 0.05
        ([1.0, 1.0], 0.4, [0.6, 1.0]),
        ([0.3, 0.3, 0.3], 0.6, [0.0, 0.6, 1.2]),  # no room for three
    ],
)
def test_names_are_moved_as_little_as_keeps_them_apart(places, distance, expected):
    np.testing.assert_allclose(apart(np.array(places), distance), expected, atol=1e-12)


def test_names_stand_at_the_ends_of_their_lines_and_not_on_each_other():
    figure, (axes,) = chart(8, 4, ["a", "$b$", "c\x1b"])
    lines = [axes.plot([1, 2, 3], y)[0] for y in ([1, 2, 5], [3, 3, 5.01], [1, 4, np.nan])]
    lines += axes.plot([1, 2], [np.nan, np.nan])
    axes.set_ylim(0, 10)
    name_lines(axes, lines, ["a", "$b$", "c\x1b", "nowhere"])
    assert [text.get_text() for text in axes.texts] == ["a", "$b$", "c\\x1b"]
    assert [text.xy for text in axes.texts] == [(3, 5), (3, 5.01), (2, 4)]
    assert [text.get_color() for text in axes.texts] == [line.get_color() for line in lines[:3]]
    assert not any(text.get_parse_math() for text in axes.texts)
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert all(lower.y1 <= upper.y0 + 1 for lower, upper in pairwise(boxes))
    assert max(box.x1 for box in boxes) < figure.bbox.x1


def test_long_names_are_cut():
    assert short("a" * LONGEST) == "a" * LONGEST
    assert short("a" * (LONGEST + 1)) == "a" * (LONGEST - 1) + "…"
