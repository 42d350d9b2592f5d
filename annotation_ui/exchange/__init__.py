"""What comes into the store from files and rounds, and what goes out to training."""
