"""What was found, as people read it in a terminal."""
