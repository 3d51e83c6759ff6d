"""Slice-to-volume reconstruction of motion-corrupted MRI with 3-D Gaussian primitives."""

__version__ = "0.1.0"
