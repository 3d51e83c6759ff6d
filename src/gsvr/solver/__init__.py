"""The solver: amplitudes, motion, weights, and the order in which they are found."""
