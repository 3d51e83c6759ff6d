"""Reconstruction while images arrive: sources deliver, examinations reconstruct, a node keeps both going."""
