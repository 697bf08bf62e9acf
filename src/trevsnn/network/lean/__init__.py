"""Forward and backward passes of the network's parts without autograd, on slices of the batch.

Each class is the fast twin of a module in :mod:`trevsnn.network.blocks`: the same operations in the same order going
forward, so the same bits; the chain rule written out going backward. They live for one pass, outside autograd. Read
backward, from the recurrence down, each with its equation:

================================  ======================================================================================
``pieces._Piece.backward``    y[l,t] through ``alpha c[l,t-1] + F[l,t]`` (:mod:`trevsnn.reversible.pieces`)
``step.LeanStep.second_pass``     through ``F = Block2(Block1(v))``
``block.LeanBlock.backward``      through ``v + gamma DW2(PW2(s(PW1(DW1(s(v))))))``
``link.LeanLink``                 through ``BN(conv(s(c)))``, and :func:`trevsnn.network.norm.normalise_backward`
``conv.LeanConv.backward``        through one convolution, and ``gradients`` through its weight's standardisation
================================  ======================================================================================
"""
