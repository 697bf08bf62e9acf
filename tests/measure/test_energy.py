"""The field's convention for energy."""

from trevsnn.measure.energy import merged
from trevsnn.measure.operations import Operation


def test_the_merged_convention_takes_two_convolutions_as_one():
    operations = [
        Operation("s.dw1", macs=90, synops=20, spikes=25, inputs=100),
        Operation("s.pw1", macs=400, spiking=False),
        Operation("s.pw2", macs=400, synops=40, spikes=10, inputs=100),
        Operation("s.dw2", macs=90, spiking=False),
        Operation("head", macs=7, spiking=False),
    ]
    counted = {op.name: op for op in merged(operations)}
    assert (counted["s.pw1"].spiking, counted["s.pw1"].synops) == (True, 100)
    assert (counted["s.dw2"].spiking, counted["s.dw2"].synops) == (True, 9)
    assert not counted["head"].spiking
