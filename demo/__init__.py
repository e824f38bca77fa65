"""A user's project in small: an online shop over five services."""
