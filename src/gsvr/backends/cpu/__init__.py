"""The backend of the CPU: NumPy arrays, and kernels in C (`gsvr.compiled`)."""
