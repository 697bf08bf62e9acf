"""Triton kernels of the spiking block on a CUDA device; :mod:`trevsnn.network.lean.block` is their plain twin."""
