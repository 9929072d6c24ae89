"""What is done to the text of a document, a file a step."""
