"""Trains the network that finds the fetal brain: label maps in, random pictures of them, weights out."""
