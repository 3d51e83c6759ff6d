"""Measurements of quality, speed and memory. Not part of the package; may need PyTorch and matplotlib."""
