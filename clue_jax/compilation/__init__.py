"""What a compiled program costs, read from the compiler without running it."""
