"""From files to files: what the commands run, in one call each."""
