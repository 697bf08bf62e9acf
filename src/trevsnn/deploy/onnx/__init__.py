"""ONNX forms of the folded network, and ONNX Runtime as an engine.

- :mod:`.float32` and :mod:`.int8`: the network in float32 and in 8-bit arithmetic.
- :mod:`.network`: what both share, from the input to the file.
- :mod:`.graph`: the graph that they build, operator by operator.
- :mod:`.roles`: what each node of the 8-bit file is for, written into it.
- :mod:`.model`: any exported file in ONNX Runtime.

**Float32.** ``s(v)`` is ``Cast(v >= 1/2)``. Heights and widths are any: maps from above are upsampled by Gathers whose indices
the graph computes, in float32 as PyTorch does, once for each pair of sizes.

**Quantisation scheme of the 8-bit file.** A code ``q`` stands for the number ``scale * (q - zero)``. Codes of maps are
uint8, with the zero point 128 (0 for spikes and DW1's output); codes of weights are int8, symmetric, with one scale for each
output channel. Scales of maps are per channel or per map, static, from calibration items. A convolution of a block, a
link or the encoder of pictures is ONNX's QLinearConv, whose sums have 32 bits::

    y = round((sum (x - x_zero) * w + b) * s) + y_zero,  limited to 0..255, halves to even,
    s = x_scale * w_scale / y_scale  for each output channel

The file has ``s`` as weight scale and 1 as scale of the maps: so a scale of the input for each channel, which ONNX does not
know, can be part of the weight.

- Spikes are the codes 0 and 1, and lose nothing. A threshold is a rounding to codes, limited to 1.
- DW1's output has 7 bits, and so have the weights of the encoder, whose input has 8: then the sum of two products fits 16
  bits, in which processors without VNNI instructions add them up.
- Maps from above are upsampled as codes: by Resize and Slice, or by two Gathers where pixels are not repeated equally often.
- States, to which blocks and links add, stay float32, and so do the head, the convolution of event frames, and an encoder
  whose leaky ReLU is not the identity or whose timesteps have projections of their own.
"""
