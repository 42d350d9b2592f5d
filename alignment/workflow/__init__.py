"""What several stages share and takes a whole recipe or a run folder."""
