"""Parts of the study of solos."""
