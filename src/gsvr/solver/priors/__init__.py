"""Priors on the amplitudes, and the preconditioners that go with them: on a lattice and between free Gaussians."""
