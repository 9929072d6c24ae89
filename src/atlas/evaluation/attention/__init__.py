"""Where heads look, and what they are for."""
