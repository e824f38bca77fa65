"""The questions that can be put to the log, one module each: it asks, and shows the answer."""
