"""What a run leaves for programs and to be cited: numbers with all that they are of."""
