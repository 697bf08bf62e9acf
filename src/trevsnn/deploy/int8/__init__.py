"""The spike-driven engine: the 8-bit ONNX file on a CPU, with work only where spikes are.

It computes the integers of :mod:`trevsnn.deploy.onnx`'s quantisation scheme, ``y = round((sum (x - x_zero) * w + b) * s) +
y_zero``, spike for spike those of ONNX Runtime on the same file. Where the input is spikes, ``x - x_zero`` is 0 or 1, and the
sum is that of the weight rows of the inputs that fire.

- :mod:`.engine`: :class:`~.engine.SpikeDriven`, called like the network.
- :mod:`.reader`: from the nodes of the file and their roles to what one loop computes.
- :mod:`.operators`: the naive twin: each ONNX operator by itself. Files without roles run on it.
- :mod:`.layers`: the convolutions. :mod:`.maps`: what is done with maps element by element.
- :mod:`.product`: exact products of 8-bit matrices.
- :mod:`.loops`: chooses :mod:`.loops_numba`, compiled, or :mod:`.loops_numpy`, its naive twin, where Numba is missing.
- :mod:`.vectors`: SIMD vectors, which the compiled loops are written in.

Numba is in the extra ``deploy``. Without it everything is dense and slow, with the same results.
"""
