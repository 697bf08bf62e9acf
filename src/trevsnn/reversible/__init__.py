"""A recurrence over T timesteps and L levels whose training memory does not grow with T, for any modules.

Nothing here knows of images, convolutions or spikes: transforms are any modules, states any tensors.

**The recurrence.** Level l has the state c[l,t] after timestep t, and every level and timestep a transform F[l,t]::

    c[l,t] = alpha[l,t] c[l,t-1] + F[l,t](c[l-1,t], c[l+1,t-1])

with the input x[t] in place of c[-1,t], and nothing in place of c[L,t-1]. At t = 0 there is neither an earlier state
nor an alpha, unless initial states c[l,-1] are given.

**Its inverse**, top level first, gives the states of t - 1 from those of t, so that they need not be stored::

    c[l,t-1] = (c[l,t] - F[l,t](c[l-1,t], c[l+1,t-1])) / alpha[l,t]

**Its adjoint.** With the loss L and y[l,t] = dL/dc[l,t], for t = T-1, ..., 0 and in each timestep l = L-1, ..., 0,
where theta are the parameters of F[l,t] and dx[t] takes the place of y[-1,t]::

    y[l-1,t]       += (dF[l,t]/dbelow)^T y[l,t]
    y[l+1,t-1]     += (dF[l,t]/dabove)^T y[l,t]
    dL/dtheta      += (dF[l,t]/dtheta)^T y[l,t]
    dL/dalpha[l,t]  = sum y[l,t] c[l,t-1]
    y[l,t-1]       += alpha[l,t] y[l,t]

They begin with y[l,T-1], the gradient of the last states, and 0 everywhere else; what a readout of c[L-1,t] gives is
added to y[L-1,t] when t is reached; what is left in the end, y[l,-1], is the gradient of the initial states. In that
order each y[l,t] is complete before it is used, and the inverse gives c[l,t-1] when dL/dalpha needs it. The inverse
gathers rounding error (:mod:`trevsnn.reversible.inversion`), and an F that thresholds its input may answer a
last digit with another spike. ``exact`` therefore keeps a code of every state, from which F sees what it saw.

Sources: the recurrence, Hu et al., "High-Performance Temporal Reversible Spiking Neural Networks with O(L) Training
Memory and O(1) Inference Cost", ICML 2024; reversible residual networks, Gomez et al., NeurIPS 2017.

========================  ==============================================================================================
``recurrence``            :func:`unroll`, the plain reference; :func:`run`, and the backward pass of one state
``plan``, ``tape``        what a run consists of; what it keeps of its states
``adjoints``              gradients on their way back
``inversion``             how much error inverting gathers, and where ``exact`` keeps a float state
``two_pass``, ``replay``  what is asked of a transform; how any module meets it
``precision``             autocast, kept for the backward pass
``memory_owner``          whose memory it is, for ``trevsnn measure memory``
========================  ==============================================================================================
"""

from trevsnn.backprop import BACKPROP_MODES, Backprop
from trevsnn.reversible.inversion import ReversibilityError
from trevsnn.reversible.plan import Readout
from trevsnn.reversible.recurrence import run, unroll
from trevsnn.reversible.replay import Replay
from trevsnn.reversible.two_pass import Code, Gradients, Neighbour, SecondPass, TwoPass

__all__ = [
    "BACKPROP_MODES", "Backprop", "Code", "Gradients", "Neighbour", "Readout", "Replay", "ReversibilityError", "SecondPass", "TwoPass",
    "run", "unroll",
]  # fmt: skip
