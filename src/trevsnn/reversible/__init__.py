"""A recurrence over T timesteps and L levels of any modules, trained without the graph of all timesteps.

Of each timestep is kept what is seen of its states, in a few bits where these are seen as spikes, or nothing. Nothing
here knows of images, convolutions or spikes: transforms are any modules, states any tensors.

**The recurrence.** Level l has the state c[l,t] after timestep t, and every level and timestep a transform F[l,t]::

    c[l,t] = alpha[l,t] c[l,t-1] + F[l,t]( o[i,t] for i in lower(l),
                                           o[j,t-1] for j in upper(l),
                                           o[l,t-1] if own(l) )
    o[l,t] = g[l](c[l,t])

with levels i < l and j > l, and the input x[t] for level -1. What a level sees is :class:`Sees`: where nothing is said, l-1
and l+1. o is c itself, or what a :class:`View` g shows of it, such as spikes. At t = 0 there is neither an earlier state
nor an alpha, unless initial states c[l,-1] are given.

**Its inverse**, top level first, gives the states of t - 1 from those of t, so that they need not be stored. What a level
sees of its own earlier state has to be kept for it::

    c[l,t-1] = (c[l,t] - F[l,t](...)) / alpha[l,t]

**Its adjoint.** With the loss L and y[l,t] = dL/dc[l,t], for t = T-1, ..., 0 and in each timestep l = L-1, ..., 0,
where theta are the parameters of F[l,t] and dx[t] takes the place of y[-1,t]::

    y[i,t]         += (dg/dc)^T (dF[l,t]/do[i,t])^T y[l,t]        likewise y[j,t-1] and y[l,t-1]
    dL/dtheta      += (dF[l,t]/dtheta)^T y[l,t]
    dL/dalpha[l,t]  = sum y[l,t] c[l,t-1]
    y[l,t-1]       += alpha[l,t] y[l,t]

The adjoints begin with y[l,T-1], the gradient of the last states, and 0 everywhere else. The gradient of what was read
from c[l,t] is added to y[l,t] when t is reached. What is left in the end, y[l,-1], is the gradient of the initial
states. In that order each y[l,t] is complete before it is used, and the inverse gives c[l,t-1] when dL/dalpha needs it.

The inverse gathers rounding error (:mod:`trevsnn.reversible.inversion`), and an F that thresholds its input may answer a
change of the last digit with another spike. ``exact`` therefore keeps every state that is seen, or its code, so that F
sees what it saw. It inverts for the gradients of alphas alone.

Sources: the recurrence, Hu et al., "High-Performance Temporal Reversible Spiking Neural Networks with O(L) Training
Memory and O(1) Inference Cost", ICML 2024; reversible residual networks, Gomez et al., NeurIPS 2017.

========================  ==============================================================================================
module                    what it has
========================  ==============================================================================================
``recurrence``            :func:`unroll`, the plain reference; :func:`run`
``pieces``                the forward and the backward pass of one state
``sees``, ``arguments``   what a level sees; whether arguments fit together
``plan``, ``tape``        what a run consists of; what it keeps of its states
``adjoints``              gradients on their way back
``inversion``             how much error inverting gathers, and where ``exact`` keeps a float state
``two_pass``, ``replay``  what is asked of a transform; how any module meets it
``constant``              levels that are not trained
``stand_ins``             where its graph begins and ends
``circumstances``         what a module reads besides its arguments, and how it reads the same again
``checksum``              by what a module is found out that does not compute the same again
``precision``             autocast, kept for the backward pass
``compiling``             what torch.compile and torch.export are shown of a pass
``memory_owner``          whose memory it is, for ``trevsnn measure memory``
========================  ==============================================================================================
"""

from trevsnn.backprop import BACKPROP_MODES, Backprop
from trevsnn.reversible.constant import Constant
from trevsnn.reversible.inversion import ReversibilityError
from trevsnn.reversible.plan import Alpha, Readout
from trevsnn.reversible.recurrence import run, unroll
from trevsnn.reversible.replay import Replay
from trevsnn.reversible.sees import Sees, adjacent
from trevsnn.reversible.stand_ins import ReplayError
from trevsnn.reversible.two_pass import Code, Gradients, Neighbour, SecondPass, TwoPass, View

__all__ = [
    "BACKPROP_MODES", "Alpha", "Backprop", "Code", "Constant", "Gradients", "Neighbour", "Readout", "Replay", "ReplayError",
    "ReversibilityError", "SecondPass", "Sees", "TwoPass", "View", "adjacent", "run", "unroll",
]  # fmt: skip
