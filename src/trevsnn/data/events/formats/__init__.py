"""The file formats of recordings, a module for each family."""
