"""Tools that people run around the pipeline: CLI, chat, server, report, studies."""
