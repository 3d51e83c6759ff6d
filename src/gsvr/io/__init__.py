"""Files in and out: NIfTI images, JSON sidecars, poses, fitted fields and the record of a run."""
