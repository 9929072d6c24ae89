"""A local server with the API that OpenAI's clients speak, and a web page."""
