"""An OpenAI-compatible server over the project's own generator and trainer."""
