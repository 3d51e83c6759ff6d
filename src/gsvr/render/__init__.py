"""Pictures of a field: volumes, planes, and values at points."""
