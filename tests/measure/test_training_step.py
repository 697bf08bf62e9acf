"""The training step that is measured."""

import pytest

from trevsnn.measure.step import TrainingStep


def test_step_says_what_it_cannot_be():
    with pytest.raises(ValueError, match="size is 0; it must be at least 1"):
        TrainingStep(size=0)
    with pytest.raises(ValueError, match="precision is '8'; it must be one of 32-true"):
        TrainingStep(precision="8")
