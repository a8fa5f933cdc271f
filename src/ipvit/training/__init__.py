"""Making models: recipes, the training loop and its objectives."""
