"""What all stages share at the door: command line and help, what each needs, progress, exit codes and stopping."""
