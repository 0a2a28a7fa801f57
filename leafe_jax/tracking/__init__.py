"""Who is told of a run while it goes on: TensorBoard, Weights & Biases, trackio."""
