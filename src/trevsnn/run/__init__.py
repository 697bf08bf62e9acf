"""What a run is on disk: config and recipes, folder, checkpoints, and loading it again."""
