"""From behaviour logs to batches of packed views."""
