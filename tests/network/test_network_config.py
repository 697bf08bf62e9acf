"""What a network's config refuses."""

import pytest

from trevsnn import TRevSNNConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": (8,)}, "two levels at least"),
        ({"channels": (8, 0, 8, 8)}, r"channels\[1\] is 0"),
        ({"channels": 64}, "give a list of positive integers"),
        ({"timesteps": 0}, "timesteps is 0; it must be a positive integer"),
        ({"timesteps": 2.5}, "timesteps is 2.5"),
        ({"kernel_size": 4}, "kernel_size is 4; it must be odd"),
        ({"num_classes": -1}, "num_classes is -1"),
        ({"num_classes": 1}, "num_classes is 1, of which the heads' standardised weights would all be 0"),
        ({"channels": (4, 1)}, r"channels\[1\] is 1, of which"),
        ({"in_chans": 0}, "in_chans is 0"),
        ({"input": "video"}, "input is 'video'; it must be one of image, event"),
        ({"encoding": "both"}, "must be one of shared, grouped"),
        ({"encoder_stride": 3}, "encoder_stride is 3; it must be one of 4, 2, 1"),
        ({"links": "some"}, "links is 'some'; it must be one of adjacent, all"),
        ({"alphas": "none"}, "alphas is 'none'; it must be one of learned, one"),
        ({"input": "event", "readout": "all"}, "readout is 'all'; it must be one of last, mean"),
        (
            {"readout": "mean"},
            "readout='mean' is for event frames; an image has heads after each quarter of T, use 'last'",
        ),
        ({"backprop": "magic"}, "must be one of exact, reversible, autograd"),
        ({"input": "event", "encoding": "grouped"}, "is for images"),
    ],
)
def test_a_bad_config_is_refused_in_one_sentence(change, message):
    with pytest.raises(ValueError, match=message) as error:
        TRevSNNConfig(**change)
    assert "\n" not in str(error.value)
