"""Parts of the study of the bundled model."""
