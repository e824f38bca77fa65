"""Files that are type-checked, not run: `make lint` holds them to what they promise."""
