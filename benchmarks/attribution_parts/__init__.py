"""Parts of the study of methods of attribution."""
