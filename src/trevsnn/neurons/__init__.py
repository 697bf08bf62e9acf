"""Neurons: a threshold, a surrogate for its derivative, and the code that is all a backward pass needs of a state.

A spike is a function of the membrane potential alone: the recurrence has the memory. To the recurrence a neuron is a
:class:`trevsnn.reversible.View`, and what it keeps of a potential a :class:`trevsnn.reversible.Code`. Leak and reset make
it a LIF neuron, a level of the recurrence.

=============  =========================================================================================================
module         what it has
=============  =========================================================================================================
``spike``      :class:`Spike`, with a rectangular surrogate; 2 bits for each neuron and timestep
``surrogate``  :class:`SurrogateSpike`, with any other surrogate; it keeps the state
``fire``       the threshold itself, in which NaN stays NaN
``lif``        :class:`LIF` and :class:`IF`: leak, soft reset and the layer before them
``network``    :class:`SpikingNetwork` of levels that see those below; :class:`Momentary` levels, without memory; sums
=============  =========================================================================================================
"""

from trevsnn.neurons.lif import ABOUT_ONE, IF, LIF
from trevsnn.neurons.network import Momentary, SpikingNetwork, Summed
from trevsnn.neurons.spike import PackedState, Spike
from trevsnn.neurons.surrogate import KeptState, SurrogateSpike, atan, sigmoid, triangle

__all__ = [
    "ABOUT_ONE",
    "IF", "LIF", "KeptState", "Momentary", "PackedState", "Spike", "SpikingNetwork", "Summed", "SurrogateSpike", "atan",
    "sigmoid", "triangle",
]  # fmt: skip
