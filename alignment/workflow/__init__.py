"""What several stages share, and what takes a whole recipe or a run folder."""
