"""Who runs the tasks."""
