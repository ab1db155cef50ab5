"""What a run shows and records: the terminal, TensorBoard, pictures."""
