"""The host loop: episodes, reflection, exploration of the tree, the budget."""
