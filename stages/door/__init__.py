"""What all stages share at the door: command line, help, progress, and stopping."""
