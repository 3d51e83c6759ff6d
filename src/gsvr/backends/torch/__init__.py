"""Arrays as PyTorch's tensors on any device; kernels in plain PyTorch, or by Triton (`gsvr.backends.triton`)."""
