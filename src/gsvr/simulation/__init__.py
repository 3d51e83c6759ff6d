"""Simulated acquisitions with a known truth; they share no closed form with the forward model."""
