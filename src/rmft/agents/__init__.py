"""The agent in one's own program: loaded once, asked for a decision a line, told what came of it."""
