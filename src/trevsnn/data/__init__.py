"""Data sets: which there are, their parts and items, and how they are loaded. Nothing here knows a network."""
