"""Reports on a run: terminal, CSV file, TensorBoard, pictures."""
