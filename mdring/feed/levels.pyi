"""Arrays of price levels, for native callers only."""
