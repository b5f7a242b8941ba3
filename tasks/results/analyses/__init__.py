"""Questions about a run that one table of recall does not answer, one module each."""
