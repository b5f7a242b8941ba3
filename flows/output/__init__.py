"""The one place that writes to a terminal, and that knows how a value is told there, in JSON and
in CSV. Tables and talk are for eyes; JSON, CSV and lines of result are exact."""
