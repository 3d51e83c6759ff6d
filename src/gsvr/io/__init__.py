"""Files in and out: NIfTI images, JSON sidecars, poses (the only place with LPS), fields and records."""
