"""Optional speed-ups of featurization; without them, Python loops compute the same graphs."""
