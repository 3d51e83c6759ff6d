"""Geometry, slices, point spread functions, fields and volumes: what is described, without optimisation or files."""
