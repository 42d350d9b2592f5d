"""What a stage runs on: device, processes, memory, random numbers, checkpoints."""
