"""What is here for speed alone: without it every molecule is read by the plain loops, as well."""
