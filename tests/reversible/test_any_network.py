"""Networks drawn at random, with modules of several kinds: value and all gradients are plain backpropagation's."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

from trevsnn.neurons import Spike, SurrogateSpike, atan
from trevsnn.reversible import Readout, Sees, run

WIDTH, BATCH = 4, 6


class Sum(nn.Module):
    """``layer(sum of W_i x_i)`` of whatever it is given."""

    def __init__(self, arguments: int, layer: nn.Module) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(arguments))
        self.layer = layer

    def forward(self, *seen):
        return self.layer(sum(f(x) for f, x in zip(self.linears, seen, strict=True) if x is not None))


class Attention(nn.Module):
    """Over the batch, as if it were tokens; in evaluation it has a fast path for passes without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(WIDTH, 2, 8, dropout=0.2, batch_first=True)

    def forward(self, x):
        return self.block(x[None])[0]


class Tied(nn.Module):
    """One module under two names, and one parameter in two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a = self.b = nn.Linear(WIDTH, WIDTH)
        self.c = nn.Linear(WIDTH, WIDTH)
        self.c.weight = self.a.weight

    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Recurrent(nn.Module):
    """A cell that keeps its weights in a list besides."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, WIDTH)

    def train(self, mode=True):
        super().train(mode)
        self.lstm.train(mode or self.lstm.weight_ih_l0.is_cuda)  # in evaluation, cuDNN's has no way back
        return self

    def forward(self, x):
        return self.lstm(x)[0]


LAYERS = {
    "tanh": nn.Tanh,
    "norm": lambda: nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Tanh()),
    "cumulative norm": lambda: nn.BatchNorm1d(WIDTH, momentum=None),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.3), nn.LayerNorm(WIDTH)),
    "attention": Attention,
    "tied": Tied,
    "recurrent": Recurrent,
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH)),
    "pruned": lambda: prune.l1_unstructured(nn.Linear(WIDTH, WIDTH), "weight", 0.5),
}
VIEWS = [
    None,
    Spike(0.5, 0.0, 1.0),
    Spike(1.0, 0.5, 1.5, height=0.5),
    Spike(2.0, -1.0, 1.0),
    SurrogateSpike(0.3, atan()),
]


@st.composite
def wirings(draw, levels, own):
    def some(of):
        return tuple(draw(st.lists(st.sampled_from(of), unique=True, max_size=3))) if of else ()

    return [
        Sees(
            some(range(-1, level)) or (level - 1,),
            some(range(level + 1, levels + 1)),
            own=own and draw(st.booleans()),
        )
        for level in range(levels)
    ]


def build(draw, mode, device):
    """Arguments of ``run``, everything that may get a gradient, and the modules."""
    timesteps, levels = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    dtypes = [torch.float32] if device.type == "mps" else [torch.float64, torch.float64, torch.float32]
    dtype = draw(st.sampled_from(dtypes))
    torch.manual_seed(draw(st.integers(0, 99)))
    sees = draw(wirings(levels, own=mode == "exact"))
    views = [draw(st.sampled_from(VIEWS)) for _ in range(levels)]
    initial = draw(st.booleans())
    shared = draw(st.booleans())

    def module(level):
        made = Sum(len(sees[level].lower) + len(sees[level].upper) + sees[level].own, LAYERS[draw(kinds)]())
        for parameter in made.parameters():
            parameter.requires_grad_(draw(st.integers(0, 4)) > 0)
        return made.to(device, dtype).train(draw(st.booleans()))

    kinds = st.sampled_from(list(LAYERS))
    first = [module(level) for level in range(levels)]
    transforms = [first if shared else [module(level) for level in range(levels)] for _ in range(timesteps)]
    one = nn.Parameter(torch.tensor(0.8, dtype=dtype, device=device))
    like = {"dtype": dtype, "device": device}
    # Twice the same value times -0.5, and that value, are exactly 0, which an inverted state misses, and an end of a window.
    negative = -0.5 if mode == "exact" else -0.55

    def alpha(_):
        return draw(
            st.sampled_from([
                None, 0.7, one, nn.Parameter(torch.full((WIDTH,), 0.6, **like)),
                nn.Parameter(torch.linspace(-0.9, 0.9, WIDTH, **like)), torch.full((WIDTH,), negative, **like),
            ])
        )  # fmt: skip

    alphas = [[alpha(level) for level in range(levels)] for _ in range(timesteps)]
    inputs = [torch.randn(BATCH, WIDTH, **like).requires_grad_(draw(st.booleans())) for _ in range(timesteps)]
    if draw(st.booleans()):
        inputs = inputs[:1] * timesteps
    states = [torch.randn(BATCH, WIDTH, **like).requires_grad_() for _ in range(levels)] if initial else None
    readouts = draw(
        st.lists(
            st.tuples(
                st.integers(0, timesteps - 1), st.integers(-1, levels - 1), st.sampled_from([torch.tanh, torch.sin])
            )
        )
    )
    once = bool(readouts) and draw(st.booleans())
    if not initial:
        alphas[0] = None
    modules = list(dict.fromkeys(f for row in transforms for f in row))
    sources = [
        *dict.fromkeys(inputs), *(states or []), one, *(a for row in alphas for a in row or () if isinstance(a, nn.Parameter)),
        *(p for f in modules for p in f.parameters()),
    ]  # fmt: skip
    sources = [s for s in dict.fromkeys(sources) if s.requires_grad]
    options = {
        "sees": sees,
        "views": views,
        "once": once,
        "readouts": [Readout(t, f, level, seen=t % 2 == 0) for t, level, f in readouts],
    }
    return (transforms, alphas, inputs, states), options, sources, modules


def outcome(arguments, options, sources, modules, mode):
    torch.manual_seed(5)
    before = [{name: b.clone() for name, b in f.named_buffers()} for f in modules]
    last, read = run(*arguments, backprop=mode, **options)
    values = [*last, *read]
    loss = sum(value.pow(2).sum() + value.sum() for value in values)
    grads = [None] * len(sources)
    if loss.requires_grad:
        # As others do between the passes.
        training = [[m.training for m in f.modules()] for f in modules]
        for f in modules:
            f.train(not f.training)
        grads = torch.autograd.grad(loss, sources, allow_unused=True)
        for f, flags in zip(modules, training, strict=True):
            for m, flag in zip(f.modules(), flags, strict=True):
                m.training = flag
    after = [b.clone() for f in modules for b in f.buffers()]
    for f, buffers in zip(modules, before, strict=True):
        for name, b in f.named_buffers():
            b.copy_(buffers[name])
    return (
        values,
        [torch.zeros_like(s) if g is None else g for g, s in zip(grads, sources, strict=True)],
        after,
        torch.rand(1, device=values[0].device),
    )


@settings(max_examples=150)
@given(data=st.data())
def test_exact_is_plain_backpropagation(device, data):
    arguments, options, sources, modules = build(data.draw, "exact", device)
    values, reference, buffers, drawn = outcome(arguments, options, sources, modules, "autograd")
    got, grads, after, random = outcome(arguments, options, sources, modules, "exact")
    assert all(torch.equal(a, b) for a, b in zip(got, values, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(after, buffers, strict=True))
    assert torch.equal(random, drawn)
    tolerance = 1e-12 if arguments[2][0].dtype == torch.float64 else 1e-4
    whole = math.sqrt(sum(float(g.square().sum()) for g in reference))
    error = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(grads, reference, strict=True)))
    assert error <= tolerance * whole


@settings(max_examples=60)
@given(data=st.data())
def test_reversible_is_plain_backpropagation_or_says_why_not(device, data):
    arguments, options, sources, modules = build(data.draw, "reversible", device)
    values, reference, *_ = outcome(arguments, options, sources, modules, "autograd")
    try:
        got, grads, *_ = outcome(arguments, options, sources, modules, "reversible")
    except (ValueError, RuntimeError) as error:
        assert "reversible" in str(error)  # noqa: PT017 - either is right
        return
    assert all(torch.equal(a, b) for a, b in zip(got, values, strict=True))
    whole = math.sqrt(sum(float(g.square().sum()) for g in reference))
    error = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(grads, reference, strict=True)))
    # Inverted states carry rounding error, which an F of numbers passes on.
    assert error <= (1e-9 if arguments[2][0].dtype == torch.float64 else 1e-2) * whole


def test_a_state_on_an_end_of_the_window_has_its_gradient_in_exact(device):
    """c[0,2] = -0.5 (x + x) + x = 0, which an inverted state need not be."""
    torch.manual_seed(0)
    x = torch.randn(BATCH, WIDTH).to(device)
    lower, upper = Sum(2, nn.Identity()).to(device), Sum(1, nn.Tanh()).to(device)
    with torch.no_grad():
        lower.linears[0].weight.copy_(torch.eye(WIDTH)), lower.linears[0].bias.zero_()
        lower.linears[1].weight.zero_(), lower.linears[1].bias.zero_()
    grads = {}
    for mode in ("exact", "autograd"):
        last, read = run(
            [[lower, upper]] * 3, [None, [None, None], [-0.5, None]], [x] * 3, views=[Spike(0.5, 0.0, 1.0)] * 2,
            sees=[Sees((-1,), (1,)), Sees((0,))], backprop=mode, readouts=[(2, torch.tanh)],
        )  # fmt: skip
        assert not last[0].any()
        grads[mode] = torch.autograd.grad(read[0].sum(), lower.linears[0].weight)[0]
    assert torch.equal(grads["exact"], grads["autograd"])
    assert grads["exact"].any()


def test_a_level_cannot_see_what_is_not_there_yet():
    f = nn.Linear(2, 2)
    x = torch.zeros(1, 2)
    for sees, message in (
        ([Sees((0,))], r"sees\[0\].lower is \(0,\): at the same timestep a level sees those below it"),
        ([Sees((-1,), (0,))], r"sees\[0\].upper is \(0,\).*set own=True"),
        ([Sees((-1,))] * 2, "sees has 2 entries for 1 levels"),
    ):
        with pytest.raises(ValueError, match=message):
            run([[f]], [None], [x], sees=sees)
    with pytest.raises(ValueError, match=r"level 0 sees its own earlier state.*use backprop='exact'"):
        run([[f]], [None], [x], sees=[Sees((-1,), own=True)], backprop="reversible")
