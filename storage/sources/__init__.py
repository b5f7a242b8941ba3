"""What users have: annotations, folders, pictures."""
