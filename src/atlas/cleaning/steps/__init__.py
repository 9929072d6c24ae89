"""Cleaning steps for the text of a document, one module per kind of step."""
