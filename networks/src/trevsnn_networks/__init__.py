"""Trained networks for trevsnn: a folder for each, as ``trevsnn export`` makes them. There is no code here."""
