"""The backend of PyTorch: tensors on any device, with plain twins of the Triton kernels."""
