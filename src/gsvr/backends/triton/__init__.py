"""Triton kernels for Nvidia cards, under the names and signatures of their twins in `gsvr.backends.torch`.

Without a card they run in Triton's interpreter, if TRITON_INTERPRET=1 is set before Triton is imported.
"""
