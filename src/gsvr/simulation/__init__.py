"""Simulated acquisitions with a known truth; they share no closed form with the forward model."""

from gsvr.simulation import phantom, simulate

__all__ = ["phantom", "simulate"]
