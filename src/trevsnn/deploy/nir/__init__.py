"""The folded network in the neuromorphic intermediate representation (Pedersen et al., Nature Communications 2024).

- :mod:`.network`: the network as a ``nir.NIRGraph``, and as the content of a file.
- :mod:`.graph`: the graph while it is built, node by node.
- :mod:`.runner`: a graph computed by PyTorch, for the comparison at an export.

All timesteps of the recurrence are unrolled: the graph has no cycles, holds no state, and gives the logits of the item that
it is given. Its nodes are Input, Conv2d, Threshold, Scale, AvgPool2d, Flatten, Affine and Output. What needs a word:

- NIR's Threshold fires above its threshold, T-RevSNN's neuron from 0.5 on. The graph has the largest number below 0.5 of the
  weights' dtype, above which the numbers of that dtype are those from 0.5 on.
- Edges into one node are added up, by a reader in any order. Never more than two lead to a node, so that the sum is the
  same in every order; where a sum has more terms, a Scale by 1 holds the first two.
- NIR has no upsampling. Along each axis two grouped convolutions with weights 0 and 1 copy the pixels: the first brings
  an axis into the channels, the second brings it back longer.
- Event frames are one input, (T * in_chans, H, W), frame after frame. A convolution with weights 0 and 1 takes one.
- The leaky ReLU that a network is trained with for its first epochs (``slope_epochs``) is not in NIR.
"""
