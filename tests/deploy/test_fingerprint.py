"""Which networks an exported file is taken for."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import trained_like
from trevsnn import TRevSNN
from trevsnn.deploy.fingerprint import check_fingerprint, fingerprint_of
from trevsnn.errors import RunError

FILE = Path("model.onnx")


def like(model: TRevSNN, **changes) -> TRevSNN:
    """A network of the same weights."""
    other = TRevSNN(replace(model.config, **changes)).to(next(model.parameters()).dtype)
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.parametrize("change", [{"readout": "mean"}, {"encoder_stride": 2}])
def test_a_network_that_computes_something_else_with_the_same_weights_is_another(change):
    model = trained_like(input="event")
    with pytest.raises(
        RunError, match=r"^model\.onnx is of another model than the weights and config beside it: export"
    ):
        check_fingerprint(fingerprint_of(model), like(model, **change), FILE)


def test_what_results_do_not_depend_on_makes_no_other_network():
    model = trained_like()
    check_fingerprint(fingerprint_of(model), like(model, backprop="autograd", slice_bytes=1), FILE)


def test_a_file_of_before_there_was_a_readout_is_of_a_network_that_reads_the_last_state():
    model = trained_like(input="event")
    content = json.loads(fingerprint_of(model))
    del content["config"]["readout"]
    check_fingerprint(json.dumps(content), model, FILE)
    with pytest.raises(RunError, match="of another model"):
        check_fingerprint(json.dumps(content), like(model, readout="mean"), FILE)
