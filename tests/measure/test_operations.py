"""Operations counted, against numbers one can work out by hand, and SpikingJelly's counter where it is installed."""

import pytest
import torch
from torch import nn

from helpers import example, trained_like
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.deploy.folded import fold
from trevsnn.measure.operations import Operation, count_operations, energy_joules


def test_a_spike_counts_for_every_weight_it_reaches():
    conv = nn.Conv2d(2, 5, 3, padding=1, bias=False)
    x = torch.zeros(1, 2, 4, 4)
    x[0, 0, 0, 0] = 1  # a corner: four outputs see it
    x[0, 1, 2, 2] = 1  # the middle: nine
    (found,) = count_operations(conv, x)
    assert (found.macs, found.spiking, found.synops) == (5 * 16 * 2 * 9, True, 5 * (4 + 9))
    assert found.rate == 2 / 32


def test_strides_groups_products_and_numbers():
    x = (torch.arange(2 * 4 * 6 * 6).view(2, 4, 6, 6) % 3 == 0).float()
    (depthwise,) = count_operations(nn.Conv2d(4, 4, 3, 2, 1, groups=4), x)
    reached = torch.conv2d(x, torch.ones(4, 1, 3, 3), None, 2, 1, 1, 4).sum()
    assert (depthwise.macs, depthwise.synops) == (2 * 4 * 9 * 9, int(reached))
    (linear,) = count_operations(nn.Linear(6, 3), x)
    assert (linear.macs, linear.synops) == (2 * 4 * 6 * 6 * 3, int(x.sum()) * 3)
    (numbers,) = count_operations(nn.Conv2d(4, 3, 1), x + 0.5)
    assert (numbers.macs, numbers.spiking, numbers.synops, numbers.rate) == (2 * 3 * 36 * 4, False, 0, 1.0)


def test_energy_by_hand():
    operations = [Operation("a", macs=1000, spiking=False), Operation("b", macs=500, synops=70)]
    assert energy_joules(operations, 4.6, 0.9) == pytest.approx(1e-12 * (4600 + 63))


def test_every_convolution_of_the_network_is_counted_and_blocks_are_given_spikes():
    model = trained_like(channels=(4, 6, 6), timesteps=2, links="all").float()
    x = example(model.config).float()
    found = {op.name: op for op in count_operations(fold(model), x)}
    convolutions = {name for name, m in fold(model).named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert set(found) == convolutions
    for name, op in found.items():
        assert op.spiking == (
            name.rpartition(".")[2] in ("dw1", "pw2", "above")
            or ".further." in name
            or (not name.startswith("levels.0.steps") and name.endswith("below"))
        ), name
    assert found["levels.0.steps.1.further.0"].macs == 6 * 6 * 4 * 6 * 6  # of the top level's pixels
    block = 6 * 4 * 16 * 12 * 12  # of a pointwise convolution of level 0, for the batch
    assert found["levels.0.steps.1.expand1.pw1"].macs == block
    assert found["levels.0.shared.pw2"].macs == 2 * block


@pytest.mark.filterwarnings("ignore")
def test_spikingjelly_counts_the_same():
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
    config = TRevSNNConfig(channels=(8, 12, 16), timesteps=2, num_classes=4)
    folded = fold(TRevSNN(config).eval())
    x = torch.randn(2, 3, 32, 32)
    synops, macs = counters.SynOpCounter(), counters.MACCounter(extra_rules={torch.ops.aten.mul.Tensor: lambda *_: 0})
    with torch.no_grad(), counters.DispatchCounterMode([synops, macs]):
        folded(x)
    found = count_operations(folded, x)
    assert sum(op.synops for op in found) == pytest.approx(synops.get_total(), rel=0.01)
    assert sum(op.macs for op in found if not op.spiking) == pytest.approx(macs.get_total(), rel=0.01)


class Product(nn.Module):
    """A matrix product of its own, on what the given module computes."""

    def forward(self, x, module):
        return module(x) @ torch.ones(3, 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.products = nn.ModuleList([Product()])
        self.linear = nn.Linear(4, 3)
        self.also = self.linear

    def forward(self, x):
        return self.products[0](x, self.linear)


def test_the_inner_module_counts_under_its_first_name():
    """Where a module runs one that lies outside of it, before its own product, and where a module has two names."""
    counted = {op.name: op.macs for op in count_operations(Net(), torch.ones(5, 4))}
    assert counted == {"linear": 5 * 4 * 3, "products.0": 5 * 3 * 2}
