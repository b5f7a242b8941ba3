"""Where people and Prefect come in."""
