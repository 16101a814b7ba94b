"""Training of the parts of the model."""
