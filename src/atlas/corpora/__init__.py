"""Sources of raw text: named downloads, the user's own files, generators."""
