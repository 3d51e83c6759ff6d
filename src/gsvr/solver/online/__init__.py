"""Reconstruction while the subject is still in the scanner: slices and stacks join what there is already."""
