"""Where raw documents come from: named downloads, the user's own files, generators."""
