"""A local server with an OpenAI-compatible API and a page."""
