"""What leaves a finished run."""
