"""Triton kernels for Nvidia cards, under the names and signatures of their twins in `gsvr.backends.torch`."""
