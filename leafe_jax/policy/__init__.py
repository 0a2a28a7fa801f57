"""The decoder-only transformer: weights, forward pass, mesh and sharding."""
