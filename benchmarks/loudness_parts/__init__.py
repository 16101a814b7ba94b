"""Parts of the study of how loud the bundled model is."""
