"""Train the parts of the model."""
