"""The networks this package brings: the paper's, the micro networks with their weights, T2T-ViT, AdaIN's."""
