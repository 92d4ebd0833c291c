"""Training: recipes, batches, loss, and one loop for all stages."""
