"""From trees of episodes to batches of tokens."""
