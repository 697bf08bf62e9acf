"""Neurons: a threshold, a surrogate for its derivative, and the code that is all a backward pass needs of a state.

Each is a function of the membrane potential alone, without leak or reset: the recurrence has the memory. What a
recurrence asks of one is :class:`trevsnn.reversible.two_pass.Code`.

=============  =========================================================================================================
``spike``      :class:`Spike`, with a rectangular surrogate; 2 bits for each neuron and timestep
``surrogate``  :class:`SurrogateSpike`, with any other surrogate; it keeps the state
``fire``       the threshold itself, in which NaN stays NaN
=============  =========================================================================================================
"""

from trevsnn.neurons.spike import PackedState, Spike
from trevsnn.neurons.surrogate import KeptState, SurrogateSpike, atan, sigmoid, triangle

__all__ = ["KeptState", "PackedState", "Spike", "SurrogateSpike", "atan", "sigmoid", "triangle"]
