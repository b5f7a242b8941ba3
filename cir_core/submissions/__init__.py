"""What a test server and an evaluation tool accept: built from rankings, and checked."""
