"""What is told on the terminal."""
