"""How adapters learn: samples, token credit, losses, the training loop, in one process or several."""
