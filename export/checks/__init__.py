"""What is checked of a file before it takes its place, and what it is held against afterwards."""
