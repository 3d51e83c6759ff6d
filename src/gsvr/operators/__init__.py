"""The acquisition operators: from the amplitudes of a field to recorded pixels, and back."""
