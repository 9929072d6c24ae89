"""params.yaml: its schema and rules, presets, and which runtime can run which model."""
