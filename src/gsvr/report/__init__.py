"""Pictures of volumes, slices and results."""
