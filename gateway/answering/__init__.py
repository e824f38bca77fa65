"""From what the client gives to what it gets: inputs, answers, streams, and every error as a problem."""
