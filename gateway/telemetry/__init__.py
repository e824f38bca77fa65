"""What other machines learn of this gateway: metrics for those who ask, spans for a collector. Off unless wanted."""
