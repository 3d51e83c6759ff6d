"""A field as numbers: on a grid of voxels, on an oblique plane, at any points."""
