"""What an annotator may do now, and what they see of it."""
