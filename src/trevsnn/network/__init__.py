"""The T-RevSNN network (Hu et al., ICML 2024): its equations as modules, and the fast passes beside them.

With the state c[l,t] of level l after timestep t (:mod:`trevsnn.reversible`) and the spike s(v) = 1 if v >= 0.5 else 0::

    F[l,t](below, above) = Block2(Block1(v)),   v = BN(conv(s(below))) + upsample(BN(conv(s(above))))
    Block(v)             = v + gamma DW2(PW2(s(PW1(DW1(s(v))))))

===========================================  ===========================================================================
``spike``                                    s(v), its surrogate gradient, 2-bit codes of states
``blocks``                                   the block, the link between levels, F[l,t], a level
``encoders``, ``heads``, ``losses``          from pictures and frames to x[t]; from states to logits; from logits to a loss
``norm``                                     batch normalisation that can be run again, and over several processes
``trunk``                                    encoder and levels, and how they are run and read
``model``, ``config``                        the whole network, and what determines it
``backbone``, ``features``                   timm's side of it; maps of chosen levels
``slicing``                                  F[l,t] and the encoder on a few items at a time: the slow twin of ``lean/``
``lean/``                                    the same without autograd, backward passes written out
``transform``                                which of the two runs
``stream``, ``rates``, ``hub``               frames one at a time; firing rates; the Hugging Face layout
===========================================  ===========================================================================
"""
