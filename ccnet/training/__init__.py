"""Training: recipes, data loading, training loop, checkpoints. Needs the extra `train`."""
