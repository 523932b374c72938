"""What it costs, side by side with what it is compared with. Each is a command; none is a timed test."""
