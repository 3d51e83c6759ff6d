"""Triton kernels for Nvidia's cards: the functions of the ``plain_`` modules of `gsvr.backends.torch`, one for one.

Without a card they run in Triton's interpreter, if TRITON_INTERPRET=1 is set before Triton is imported.
"""
