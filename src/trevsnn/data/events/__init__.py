"""Recordings of event cameras: files, frames binned from them, sets, and their transforms."""
