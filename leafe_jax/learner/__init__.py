"""From batches to weights: losses, the update, checkpoints, the loop."""
