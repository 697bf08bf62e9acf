"""Forward and backward passes of the network's parts without autograd, on slices of the batch.

Each class here is the twin of a module in :mod:`trevsnn.network.blocks`: the same operations in the same order going forward,
so the same bits; the chain rule written out going backward. They live for one pass, outside autograd.
"""
