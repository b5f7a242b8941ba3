"""What a run takes, from counts and speeds."""
