"""How far representations move under every perturbation, without any label."""
