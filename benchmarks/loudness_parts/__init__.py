"""Parts of the study of the loudness of the bundled model."""
