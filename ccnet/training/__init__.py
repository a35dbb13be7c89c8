"""Training: recipes, data order, the loop and its checkpoints. Needs the extra `train`."""
