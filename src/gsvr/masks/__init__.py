"""Which pixels show the brain: masks as drawn, borrowed or guessed, and the consensus mask of all slices."""
