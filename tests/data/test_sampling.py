"""The order of an epoch's items."""

from trevsnn.data.sampling import EpochSampler, mix_seed


def test_the_sampler_s_order_can_be_entered_anywhere():
    sampler = EpochSampler(50, seed=1, shuffle=True)
    sampler.epoch = 4
    whole = list(sampler)
    assert sorted(whole) == [(4, i) for i in range(50)]
    sampler.start = 20
    assert list(sampler) == whole[20:]
    assert len(sampler) == 30
    sampler.epoch, sampler.start = 5, 0
    assert [i for _, i in sampler] != [i for _, i in whole]
    assert len({mix_seed(a, b) for a in range(40) for b in range(40)}) == 1600


def test_processes_share_an_epoch_without_overlap():
    """Four processes see in each step what one sees, and what is left out at the end changes with the epoch."""
    alone = EpochSampler(48, seed=1, shuffle=True, of=50)
    shared = [EpochSampler(48, seed=1, shuffle=True, rank=r, world=4, of=50) for r in range(4)]
    for sampler in (alone, *shared):
        sampler.epoch, sampler.start = 2, 16
    parts = [list(sampler) for sampler in shared]
    assert [len(part) for part in parts] == [len(s) for s in shared] == [8] * 4
    for step in range(2):
        together = {key for part in parts for key in part[4 * step : 4 * step + 4]}
        assert together == set(list(alone)[16 * step : 16 * step + 16])
    left_out = []
    for epoch in range(2):
        alone.epoch, alone.start = epoch, 0
        left_out.append(set(range(50)) - {i for _, i in alone})
    assert [len(s) for s in left_out] == [2, 2]
    assert left_out[0] != left_out[1]
    uneven = [EpochSampler(10, 0, shuffle=False, rank=r, world=4) for r in range(4)]
    assert [len(s) for s in uneven] == [3, 3, 2, 2]
    assert sorted(i for s in uneven for _, i in s) == list(range(10))
