"""Pure tensor functions: distances, normalisation, pair masks, k-center, covering radius."""
