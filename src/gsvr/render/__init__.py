"""Pictures of a field: volumes, planes, and values at points."""

# Voxel size (mm) of a volume where no other is asked for.
VOXEL_SIZE = 0.8
