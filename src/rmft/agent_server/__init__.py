"""An agent over HTTP: its routes beside the server's own, with the server's keys, limits and store."""
