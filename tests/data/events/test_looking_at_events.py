"""What recordings hold, by hand and by counting one by one; and their pictures, pixel by pixel."""

import io
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import shared_data
from event_files import folder_of_recordings, some_events, write_nmnist
from trevsnn.data.events import colours
from trevsnn.data.events.animation import animation, animation_spans
from trevsnn.data.events.look import hot_pixels, look_at_events, look_at_file, rate_windows
from trevsnn.data.events.look_at_set import find_recordings, look_at_recordings, summarise
from trevsnn.data.events.picture import HEAD, MARGIN, set_sheet, sheet, sheet_spans
from trevsnn.data.events.recordings import EVENT, UNSTATED
from trevsnn.data.events.units import rate_text, time_text
from trevsnn.errors import UnreadableError


def events_of(*rows: tuple[int, int, int, int]) -> np.ndarray:
    return np.array(list(rows), EVENT)


def test_figures_by_hand():
    events = events_of((3, 1, 1000, 0), (0, 2, 1000, 1), (9, 0, 1500, 1), (1, 1, 2000, 0), (0, 0, 5999, 1))
    figures = look_at_events(events, (4, 4))
    windows = figures.pop("windows")
    assert figures == {
        "sensor": [4, 4], "events": 5, "darker": 2, "brighter": 3, "start_us": 1000, "duration_us": 4999,
        "mean_rate": 5 / 4999e-6, "peak_rate": 2 / 499e-6, "peak_window_us": 499, "equal_times": 1,
        "outside": {"events": 1, "first": {"number": 3, "x": 9, "y": 0, "after_us": 500}},
        "hot": {"count": 0, "events": 0, "pixels": []}, "longest_gap": {"us": 3999, "after_us": 1000},
    }  # fmt: skip
    assert (len(windows["darker"]), sum(windows["darker"]), sum(windows["brighter"])) == (60, 2, 3)
    assert (windows["darker"][0], windows["brighter"][0], windows["brighter"][-1]) == (1, 1, 1)
    assert look_at_events(events, None)["sensor"] == [10, 3]
    assert look_at_events(events, None)["outside"] == {"events": 0, "first": None}


def test_figures_of_one_event_and_of_one_time():
    for events in (events_of((2, 3, 7, 0)), events_of(*[(2, 3, 7, 1)] * 4)):
        figures = look_at_events(events, None)
        assert (figures["duration_us"], figures["mean_rate"], figures["peak_rate"]) == (0, None, None)
        assert (figures["equal_times"], figures["sensor"]) == (len(events) - 1, [3, 4])
        assert figures["windows"]["edges_us"] == [0, 1]


def test_no_event_on_the_sensor():
    figures = look_at_events(events_of((9, 9, 0, 0), (-1, 0, 5, 0)), (4, 4))
    assert figures["outside"] == {"events": 2, "first": {"number": 1, "x": 9, "y": 9, "after_us": 0}}
    assert figures["hot"]["count"] == 0
    assert look_at_events(events_of((-1, 0, 5, 0)), None)["outside"]["events"] == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(-300, 300), st.integers(0, 1)), min_size=1))
def test_figures_are_those_of_counting_one_by_one(rows):
    events = events_of(*sorted(rows, key=lambda row: row[2]))
    figures = look_at_events(events, (5, 5))
    t = events["t"].tolist()
    window = figures["peak_window_us"]
    assert window == max((t[-1] - t[0]) // 10, 1)
    if t[-1] > t[0]:
        most = max(sum(start <= other < start + window for other in t) for start in t)
        assert figures["peak_rate"] == pytest.approx(1e6 * most / window)
    assert figures["longest_gap"]["us"] == max((b - a for a, b in pairwise(t)), default=0)
    assert figures["outside"]["events"] == sum(x > 4 or y > 4 for x, y, _, _ in rows)
    edges = figures["windows"]["edges_us"]
    assert (edges[0], edges[-1]) == (0, t[-1] - t[0] + 1)
    assert max(np.diff(edges)) - min(np.diff(edges)) <= 1
    for name, polarity in (("darker", 0), ("brighter", 1)):
        own = [time - t[0] for _, _, time, p in events.tolist() if p == polarity]
        assert figures["windows"][name] == np.histogram(own, [*edges[:-1], edges[-1] - 0.5])[0].tolist()


@given(
    st.integers(0, 1000), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=200), st.integers(0, 80)
)
def test_hot_pixels_are_those_of_the_rule(seed, places, hot):
    """Written anew on a map, with a border of zeros."""
    places = [*places, *[(3, 0)] * hot, *[(4, 1)] * hot]
    if not places:
        return
    dice = np.random.default_rng(seed)
    events = np.zeros(len(places), EVENT)
    events["x"], events["y"] = dice.permutation(places).T
    counts = np.zeros((9, 9), int)
    for x, y in places:
        counts[y + 1, x + 1] += 1
    expected = {}
    for y in range(1, 8):
        for x in range(1, 8):
            around = sorted(np.delete(counts[y - 1 : y + 2, x - 1 : x + 2].ravel(), 4))
            if counts[y, x] >= 20 and counts[y, x] > 10 * np.mean(around[:-1]):
                expected[x - 1, y - 1] = counts[y, x]
    found = hot_pixels(events)
    assert (found["count"], found["events"]) == (len(expected), sum(expected.values()))
    for pixel in found["pixels"]:
        assert pixel["events"] == expected[pixel["x"], pixel["y"]]
        assert pixel["share"] == pixel["events"] / len(events)


def test_hot_pixels_far_apart_take_no_memory_and_have_no_neighbours_in_other_rows():
    most = 2**31 - 1
    far = [(most, 0, 0, 0)] * 20 + [(0, 1, 0, 0)] * 20 + [(0, most, 0, 1)] * 30
    found = hot_pixels(events_of(*far))
    assert [(p["x"], p["y"], p["events"]) for p in found["pixels"]] == [
        (0, most, 30),
        (most, 0, 20),
        (0, 1, 20),
    ]


def test_a_real_recording_with_hot_pixels():
    """The face in AEDAT 4 has isolated pixels that send hundreds of events in 0.6 s; the digit has none."""
    _, figures = look_at_file(shared_data("event-format-samples", "tonic_sample.aedat4"))
    assert (figures["hot"]["count"], figures["hot"]["events"]) == (64, 9839)
    assert figures["hot"]["pixels"][0] == {"x": 187, "y": 105, "events": 651, "share": 651 / 111_954}
    _, figures = look_at_file(shared_data("event-format-samples", "tonic_sample_nmnist.bin"))
    assert (figures["hot"]["count"], figures["darker"], figures["brighter"]) == (0, 2180, 2145)


def test_times_that_span_centuries_and_what_is_no_file(tmp_path):
    (tmp_path / "folder.bin").mkdir()
    with pytest.raises(UnreadableError, match=r"folder.bin is no file"):
        look_at_file(tmp_path / "folder.bin")
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "long.h5", "w") as file:
        for name, values in (("x", [0, 1]), ("y", [0, 1]), ("p", [0, 1]), ("t", [0, 2**60])):
            file[name] = values
    with pytest.raises(UnreadableError, match="its events span more than 285 years"):
        look_at_file(tmp_path / "long.h5")


def test_windows_of_the_rate_have_whole_microseconds():
    windows = rate_windows(events_of((0, 0, 5, 1), (0, 0, 7, 0)), 60)
    assert windows == {"edges_us": [0, 1, 2, 3], "darker": [0, 0, 1], "brighter": [1, 0, 0]}


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_the_frames_of_a_sheet_show_every_event_in_its_place_and_colour():
    """Two frames, 4 x 3 pixels each enlarged 68 times; the stray one is not drawn."""
    events = events_of((0, 0, 0, 1), (3, 2, 10, 0), (9, 9, 20, 0), (1, 1, 60, 1), (1, 1, 61, 0), (2, 0, 99, 1))
    figures = look_at_events(events, (4, 3))
    spans = sheet_spans(figures["duration_us"], 2, 10**9)
    assert spans == [(0, 50), (50, 100)]
    shown = pixels(sheet(events, figures, "x.bin", spans))
    palette = colours.palette().astype(int)
    orange = palette[1 + 8 * 20]  # of one event
    blue = palette[1]
    both = palette[1 + 4 * 20 + 19]  # of the most
    width = 4 * 68
    frames = {
        (0, 0, 0): orange, (0, 3, 2): blue, (0, 1, 1): [255] * 3, (1, 1, 1): both, (1, 2, 0): orange, (1, 0, 0): [255] * 3,
    }  # fmt: skip
    for (frame, x, y), colour in frames.items():
        left, top = MARGIN + frame * (width + 12) + 68 * x, HEAD + 68 * y
        square = shown[top + 3 : top + 65, left + 3 : left + 65]
        assert (square == colour).all(), (frame, x, y, square[5, 5])


def test_frames_of_a_long_recording_are_the_beginnings_of_its_parts():
    assert sheet_spans(9_999_999, 4, 100_000) == [
        (0, 100_000),
        (2_500_000, 2_600_000),
        (5_000_000, 5_100_000),
        (7_500_000, 7_600_000),
    ]
    assert sheet_spans(0, 8, 100_000) == [(0, 1)]


def test_names_are_drawn_as_they_are_without_a_warning():
    """No formulas of dollars; letters that the font lacks are boxes."""
    events = some_events(300)
    figures = look_at_events(events, (34, 34))
    spans = sheet_spans(figures["duration_us"], 2, 99_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("$x_{1}$.bin", "$\\frac{.bin", "$", "\u4e2d\U0001f600.bin", "a\x1b[31m\udce9\n.bin"):
            assert pixels(sheet(events, figures, name, spans)).shape[2] == 3
            assert pixels(set_sheet([(name, events, (34, 34), spans)], name, "note")).shape[2] == 3
            animation([(name, events, (34, 34))], animation_spans(1, 33_000), 1)


def frames_of(content: bytes) -> tuple[list[np.ndarray], list[int]]:
    gif = Image.open(io.BytesIO(content))
    frames, times = [], []
    for number in range(gif.n_frames):
        gif.seek(number)
        frames.append(np.asarray(gif.convert("RGB")).astype(int))
        times.append(gif.info["duration"])
    return frames, times


def test_an_animation_keeps_the_speed_and_shows_every_event():
    events = events_of((0, 0, 0, 1), (3, 2, 33_000, 0), (3, 2, 98_999, 1), (1, 0, 99_000, 1))
    spans = animation_spans(99_000, 33_000)
    assert spans == [(0, 33_000), (33_000, 66_000), (66_000, 99_000), (99_000, 132_000)]
    frames, times = frames_of(animation([("", events, (4, 3))], spans, 1))
    assert times == [30, 40, 30, 30]  # 33, 66, 99 and 132 ms to the hundredth
    orange, blue = (np.array(c) for c in (colours.palette()[1 + 8 * 20], colours.palette()[1]))
    for number, (x, y, colour) in enumerate([(0, 0, orange), (3, 2, blue), (3, 2, orange), (1, 0, orange)]):
        picture = frames[number][: 3 * 68]
        coloured = (picture != 255).any(2)
        expected = np.zeros_like(coloured)
        expected[68 * y : 68 * (y + 1), 68 * x : 68 * (x + 1)] = True
        assert np.array_equal(coloured, expected), number
        assert (picture[coloured] == colour).all()
    _, times = frames_of(animation([("", events, (4, 3))], spans, 4))
    assert times == [130, 130, 140, 130]


def test_an_animation_of_several_shows_each_in_its_place():
    events = events_of((0, 0, 0, 1), (1, 1, 1, 0))
    frames, _ = frames_of(animation([(n, events, (2, 2)) for n in "abc"], [(0, 10)], 10_000))
    assert len(frames) == 1
    assert frames[0].shape == (136 + 16 + 22, 3 * 136 + 2 * 6, 3)  # three in a row rather than a hole
    orange = (frames[0] == colours.palette()[1 + 8 * 20]).all(2)
    assert [np.flatnonzero(orange.any(0))[i] // 142 for i in (0, 70, -1)] == [0, 1, 2]


def test_animations_are_bounded():
    assert len(animation_spans(10**12, 33_000)) == 300
    assert animation_spans(0, 33_000) == [(0, 33_000)]


@settings(max_examples=30)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 300), st.integers(300, 700))
def test_pixels_are_enlarged_by_whole_factors_and_never_beyond_the_room(width, height, small, large):
    (rows, columns), factor = colours.fitting((width, height), small, large)
    assert rows * factor <= large
    assert columns * factor <= large
    if max(width, height) <= large:
        assert (rows, columns) == (height, width)
        assert factor == 1 or max(width, height) * factor <= small < max(width, height) * (factor + 1)


def test_a_set_by_part_and_class(tmp_path):
    folder_of_recordings(tmp_path, 3, ("Train", "test"))
    write_nmnist(tmp_path / "Train" / "cat" / "deep" / "cat_10.bin", some_events(301, seed=5))
    (tmp_path / "Train" / "dog" / "broken.bin").write_bytes(b"123")
    (tmp_path / "Train" / "dog" / ".hidden.bin").write_bytes(b"123")
    (tmp_path / "Train" / "empty").mkdir()
    groups = find_recordings(tmp_path)
    assert groups["train", "cat"] == [
        f"Train/cat/{n}" for n in ("cat_0.bin", "cat_1.bin", "cat_2.bin", "deep/cat_10.bin")
    ]
    rows, unreadable = summarise(groups, look_at_recordings(tmp_path, groups, (34, 34), 0, UNSTATED))
    assert list(unreadable) == ["Train/dog/broken.bin"]
    assert [(r["part"], r["class"], r["recordings"], r["unreadable"]) for r in rows] == [
        ("train", "cat", 4, 0), ("train", "dog", 4, 1), ("train", "empty", 0, 0), ("test", "cat", 3, 0), ("test", "dog", 3, 0),
    ]  # fmt: skip
    own = [some_events(300, seed=i) for i in range(3)] + [some_events(301, seed=5)]
    spans = [int(e["t"][-1] - e["t"][0]) for e in own]
    assert rows[0]["events"] == 300
    assert rows[0]["duration_us"] == np.median(spans)
    assert rows[0]["rate"] == pytest.approx(np.median([1e6 * len(e) / s for e, s in zip(own, spans, strict=True)]))
    assert rows[0]["brighter"] == pytest.approx(np.concatenate(own)["p"].mean())
    assert rows[2]["events"] is rows[2]["sensor"] is None


def test_words_for_times_and_rates():
    assert [time_text(t) for t in (0, 999, 1000, 310_521, 1_999_900, 18_762_697)] == [
        "0 us", "999 us", "1 ms", "310.5 ms", "1,999.9 ms", "18.76 s",
    ]  # fmt: skip
    assert [rate_text(r) for r in (0, 0.0005, 100, 999.96, 13_928.2, 2e6)] == [
        "0", "0.0005", "100", "1 k", "13.9 k", "2 M",
    ]  # fmt: skip
